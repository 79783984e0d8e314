//! What comes first when there is more to do than fits into a turn.

use super::*;

/// What the device has put into receive buffers in front of the first data.
fn received_before_data(guest: &mut Guest) -> Vec<(Operation, u32)> {
    let mut operations = Vec::new();
    while let Some((header, _)) = guest.driver.receive(true) {
        match Operation::from_wire(header.operation).unwrap() {
            Operation::ReadWrite => return operations,
            operation => operations.push((operation, header.dst_port)),
        }
    }
    panic!("no data in this turn, but only {operations:?}");
}

/// Whatever waits in the sockets of others, the packets that open a connection are in the very next buffers. What a guest
/// itself sends first is its own choice: the transmit queue is served in order.
#[test]
fn a_new_connection_waits_behind_no_data_in_either_direction() {
    let directory = directory();
    let listener = listen(directory.path(), 9000);
    let mut guest = Guest::new(directory.path());
    guest.listening.insert(5000);
    let streams: Vec<_> = (2000..2016)
        .map(|port| connected(&mut guest, &listener, (port, 9000)))
        .collect();
    // As much as a socket holds, for each: more than a mebibyte of receive buffers in each of the turns that follow.
    for mut stream in &streams {
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 4096]).is_ok() {}
    }

    guest.connect((1024, 9000));
    guest.step(1);
    guest.driver.turn(1);
    let first = received_before_data(&mut guest);
    assert!(first.contains(&(Operation::Response, 1024)), "{first:?}");
    while guest.driver.receive(true).is_some() {}

    let mut client = UnixStream::connect(directory.path().join("vsock.sock")).unwrap();
    client.write_all(b"CONNECT 5000\n").unwrap();
    guest.driver.turn(1);
    let first = received_before_data(&mut guest);
    assert!(first.contains(&(Operation::Request, 5000)), "{first:?}");
}
