//! In its steady state a worker allocates no memory, whatever passes through it.

use crate::harness::Proxy;
use std::fmt::Write as _;

const PIPELINE: usize = 16;
/// Lists and buffers grow to their size as chance will have it.
const GROWTH: u64 = 40;

/// Allocations of a worker that passes on so many pipelines of two clients.
fn allocations(rounds: usize) -> u64 {
    let mut proxy = Proxy::start(vec![Vec::new(), Vec::new()]);
    let mut clients = [proxy.client(), proxy.client()];
    let (mut commands, mut replies) = (String::new(), String::new());
    for index in 0..PIPELINE {
        let key = format!("key:{index:04}");
        write!(commands, "*2\r\n$3\r\nGET\r\n$8\r\n{key}\r\n").expect("a string");
        write!(replies, "$8\r\n{key}\r\n").expect("a string");
    }
    for _ in 0..rounds {
        for client in &mut clients {
            client.send_bytes(commands.as_bytes());
        }
        for client in &mut clients {
            client.expect(replies.as_bytes(), "in order");
        }
    }
    drop(clients);
    proxy.stop()
}

#[test]
fn ordinary_commands_allocate_nothing() {
    let (few, many) = (allocations(300), allocations(2300));
    assert!(many <= few + GROWTH, "{few} allocations, then {many}");
}
