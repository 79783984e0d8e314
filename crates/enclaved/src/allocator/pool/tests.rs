use super::*;
use proptest::prelude::*;

fn entry(node: u32, cpus: &[u32], pages_1g: u64, pages_2m: u64) -> PoolEntry {
    PoolEntry {
        node,
        cpus: cpus.to_vec(),
        pages_1g,
        pages_2m,
    }
}

#[test]
fn a_pool_is_written_and_read_replaced_and_removed() {
    let run = tempfile::tempdir().unwrap();
    assert_eq!(Pool::read(run.path()).unwrap(), None);

    for pool in [
        Pool::new(vec![entry(0, &[2, 3], 0, 256), entry(1, &[4, 5], 1, 0)]),
        Pool::new(vec![entry(1, &[4], 0, 1)]),
    ] {
        pool.write(run.path()).unwrap();
        assert_eq!(Pool::read(run.path()).unwrap(), Some(pool));
    }

    let files = fs::read_dir(run.path()).unwrap().count();
    assert_eq!(files, 1, "no temporary file stays");
    let mode = fs::metadata(run.path().join(POOL_FILE))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o644);
    Pool::remove(run.path()).unwrap();
    Pool::remove(run.path()).unwrap();
    assert_eq!(Pool::read(run.path()).unwrap(), None);
}

#[test]
fn the_format_is_what_the_documentation_says() {
    let run = tempfile::tempdir().unwrap();
    Pool::new(vec![entry(0, &[2, 3], 0, 256)])
        .write(run.path())
        .unwrap();

    let text = fs::read_to_string(run.path().join(POOL_FILE)).unwrap();

    let documented = include_str!("../pool.rs").lines().nth(3).unwrap();
    assert_eq!(text.trim(), documented.trim_start_matches("//! "));
}

#[test]
fn a_file_that_is_no_pool_is_named_with_its_remedy() {
    let run = tempfile::tempdir().unwrap();
    let read = |content: &str| {
        fs::write(run.path().join(POOL_FILE), content).unwrap();
        Pool::read(run.path()).unwrap_err()
    };

    for content in [
        "",
        "{}",
        "[]",
        "{\"version\":1}",
        "{\"version\":1,\"entries\":[],\"more\":1}",
        "{\"version\":1,\"entries\":[{\"node\":0,\"cpus\":[-1],\"pages_1g\":0,\"pages_2m\":0}]}",
        "{\"version\":1,\"entries\":[{\"node\":0,\"cpus\":[1],\"pages_1g\":0}]}",
    ] {
        let error = read(content);
        assert!(matches!(error, PoolError::Malformed { .. }), "{content}: {error}");
        assert!(
            error
                .to_string()
                .contains("pool.json is damaged; run nitro-enclaves-allocator"),
            "{error}"
        );
    }
    let error = read("{\"version\":2,\"pools\":[]}").to_string();
    assert!(error.contains("has version 2"), "{error}");
    let error = read(
        "{\"version\":1,\"entries\":[{\"node\":0,\"cpus\":[1],\"pages_1g\":0,\"pages_2m\":1},\
         {\"node\":0,\"cpus\":[2,1],\"pages_1g\":0,\"pages_2m\":1}]}",
    );
    assert!(error.to_string().contains("has CPU 1 twice"), "{error}");
    let error = read(&" ".repeat(usize::try_from(MAX_BYTES).unwrap() + 1));
    assert!(matches!(error, PoolError::TooLarge { .. }), "{error}");
}

#[test]
fn users_of_the_pool_share_it_and_its_changer_is_alone() {
    let run = tempfile::tempdir().unwrap();
    let users = [(); 2].map(|()| PoolLock::shared(run.path()).unwrap());

    let error = PoolLock::exclusive_within(Duration::ZERO, run.path()).unwrap_err();
    assert!(matches!(error, PoolError::InUse { .. }), "{error}");

    drop(users);
    let changer = PoolLock::exclusive(run.path()).unwrap();
    let error = PoolLock::shared(run.path()).unwrap_err().to_string();
    assert!(error.starts_with("the pool is being changed"), "{error}");
    assert!(PoolLock::exclusive_within(Duration::ZERO, run.path()).is_err());

    drop(changer);
    assert!(PoolLock::shared(run.path()).is_ok());
}

#[test]
fn the_changer_waits_for_a_user_that_is_soon_done() {
    let run = tempfile::tempdir().unwrap();
    let user = PoolLock::shared(run.path()).unwrap();
    let (ready, started) = std::sync::mpsc::channel();

    thread::scope(|scope| {
        let changer = scope.spawn(|| {
            ready.send(()).unwrap();
            PoolLock::exclusive_within(Duration::from_mins(1), run.path())
        });
        started.recv().unwrap();
        drop(user);
        assert!(changer.join().unwrap().is_ok());
    });
}

#[test]
fn without_a_run_directory_there_is_no_pool_and_no_lock() {
    let absent = Path::new("/nonexistent/run");
    assert_eq!(Pool::read(absent).unwrap(), None);
    assert!(matches!(PoolLock::shared(absent), Err(PoolError::Io { .. })));
    assert!(matches!(
        Pool::new(Vec::new()).write(absent),
        Err(PoolError::Io { .. })
    ));
}

#[test]
fn an_entry_is_told_with_its_pages() {
    assert_eq!(
        entry(0, &[2, 3], 0, 256).to_string(),
        "CPUs 2,3 and 512 MiB (256 pages of 2 MiB) on NUMA node 0"
    );
    assert_eq!(
        entry(1, &[4], 1, 1).to_string(),
        "CPUs 4 and 1026 MiB (1 page of 1 GiB, 1 page of 2 MiB) on NUMA node 1"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_a_pool_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Pool::parse(&bytes, Path::new("pool.json"));
    }

    #[test]
    fn any_numbers_are_added_up(node: u32, pages_1g: u64, pages_2m: u64) {
        let pool = Pool::new(vec![entry(node, &[1], pages_1g, pages_2m); 3]);
        let _ = (pool.entries[0].mib(), pool.pages(node, PageSize::Gigabyte));
    }
}
