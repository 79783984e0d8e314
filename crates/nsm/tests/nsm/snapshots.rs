//! A bank that was written down and read back, or tampered with in between.

use nsm::{PcrBank, Snapshot, SnapshotError};
use serde_json::{Value, json};

use crate::machine::bank;

fn written(bank: &PcrBank) -> Value {
    serde_json::to_value(Snapshot::from(bank)).unwrap()
}

fn read(value: Value) -> Result<PcrBank, SnapshotError> {
    let snapshot: Snapshot = serde_json::from_value(value).unwrap();
    PcrBank::try_from(&snapshot)
}

#[test]
fn a_bank_comes_back_as_it_was() {
    let mut bank = bank();
    bank.extend(16, b"x").unwrap();
    bank.extend(31, b"y").unwrap();
    bank.lock(31).unwrap();
    assert_eq!(read(written(&bank)), Ok(bank.clone()));
    bank.lock_range(32).unwrap();
    assert_eq!(read(written(&bank)), Ok(bank));
}

#[test]
fn values_are_hexadecimal_and_locks_are_indices() {
    let value = written(&bank());
    assert_eq!(value["values"][0], json!("a0".repeat(48)));
    assert_eq!(value["values"][31], json!("00".repeat(48)));
    assert_eq!(value["values"].as_array().unwrap().len(), 32);
    assert_eq!(
        value["locked"],
        json!([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15])
    );
    assert_eq!(value.as_object().unwrap().len(), 2);
}

#[test]
fn another_number_of_registers_is_refused() {
    let mut short = written(&bank());
    short["values"].as_array_mut().unwrap().pop();
    assert_eq!(read(short), Err(SnapshotError::Count { found: 31 }));
    let mut long = written(&bank());
    long["values"]
        .as_array_mut()
        .unwrap()
        .push(json!("00".repeat(48)));
    assert_eq!(read(long), Err(SnapshotError::Count { found: 33 }));
}

fn with_locks(locks: impl IntoIterator<Item = u16>) -> Result<PcrBank, SnapshotError> {
    let mut value = written(&bank());
    value["locked"] = locks.into_iter().collect();
    read(value)
}

#[test]
fn a_register_of_the_platform_that_is_not_locked_is_refused() {
    for missing in 0..16 {
        assert_eq!(
            with_locks((0..32).filter(|index| *index != missing)),
            Err(SnapshotError::Unlocked { index: missing })
        );
    }
    assert_eq!(with_locks([]), Err(SnapshotError::Unlocked { index: 0 }));
}

#[test]
fn locks_out_of_order_or_range_are_refused() {
    assert_eq!(with_locks(0..33), Err(SnapshotError::Locks { index: 32 }));
    assert_eq!(
        with_locks((0..16).chain([65535])),
        Err(SnapshotError::Locks { index: 65535 })
    );
    assert_eq!(
        with_locks((0..16).chain([20, 20])),
        Err(SnapshotError::Locks { index: 20 })
    );
    assert_eq!(
        with_locks((0..16).chain([20, 19])),
        Err(SnapshotError::Locks { index: 19 })
    );
}

#[test]
fn a_value_where_none_can_be_is_refused() {
    for index in 0..32 {
        let mut value = written(&bank());
        value["values"][index] = json!("ff".repeat(48));
        let always_zero = matches!(index, 5..=7 | 9..=15);
        match read(value) {
            Err(SnapshotError::NotZero { index: found }) => {
                assert_eq!((usize::from(found), always_zero), (index, true));
            }
            read => assert!(read.is_ok() && !always_zero, "PCR{index}: {read:?}"),
        }
    }
}

#[test]
fn what_is_not_a_snapshot_is_not_read() {
    let change = |change: &dyn Fn(&mut Value)| {
        let mut value = written(&bank());
        change(&mut value);
        serde_json::from_value::<Snapshot>(value)
    };
    assert!(change(&|_| ()).is_ok());
    assert!(change(&|value| value["more"] = json!(1)).is_err());
    assert!(change(&|value| value["values"][3] = json!("ff")).is_err());
    assert!(change(&|value| value["values"][3] = json!("zz".repeat(48))).is_err());
    assert!(change(&|value| value["locked"][0] = json!(-1)).is_err());
    assert!(change(&|value| drop(value.as_object_mut().unwrap().remove("locked"))).is_err());
}
