//! What one hop between two processes costs: Unix socket, TCP loopback, shared memory with a futex.
//!
//! ```text
//! cargo run --release --example hop [CPU]
//! ```
//!
//! *pair*: one thread writes and reads it back, so only the calls count. *ping-pong*: two threads on
//! one CPU, each waits for the other, so each hop has a wake-up and a switch. Shared memory: the
//! copies alone, and with a futex as the bell. Each figure is the median of [`ROUNDS`] rounds.

#![allow(clippy::print_stdout, clippy::cast_precision_loss)]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use rustix::thread::futex::{Flags, wait, wake};
use rustix::thread::{CpuSet, sched_setaffinity};

const SIZES: [usize; 5] = [40, 1024, 4096, 16 * 1024, 64 * 1024]; // bytes
const ROUNDS: usize = 15;
const HOPS: u32 = 5000; // a round

fn main() -> io::Result<()> {
    let cpu = std::env::args().nth(1).map_or(Ok(0), |text| text.parse());
    let mut set = CpuSet::new();
    set.set(cpu.map_err(io::Error::other)?);
    sched_setaffinity(None, &set)?;
    println!("µs a hop             bytes    Unix     TCP   TCP ÷ Unix   memory");
    for size in SIZES {
        let unix = measured(|| pair(UnixStream::pair()?, size))?;
        let tcp = measured(|| pair(tcp_pair()?, size))?;
        let memory = measured(|| Ok(copies(size)))?;
        print("write and read", size, unix, tcp, memory);
    }
    for size in SIZES {
        let unix = measured(|| ping_pong(UnixStream::pair()?, size))?;
        let tcp = measured(|| ping_pong(tcp_pair()?, size))?;
        let memory = measured(|| bell(size))?;
        print("ping-pong", size, unix, tcp, memory);
    }
    Ok(())
}

fn print(what: &str, size: usize, unix: f64, tcp: f64, memory: f64) {
    println!("{what:16} {size:9} {unix:7.2} {tcp:7.2} {:12.2} {memory:8.2}", tcp / unix);
}

/// The median of some rounds, each of which returns µs a hop.
fn measured(mut round: impl FnMut() -> io::Result<f64>) -> io::Result<f64> {
    let mut found = (0..ROUNDS).map(|_| round()).collect::<io::Result<Vec<_>>>()?;
    found.sort_by(f64::total_cmp);
    Ok(found[ROUNDS / 2])
}

fn tcp_pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let one = TcpStream::connect(listener.local_addr()?)?;
    let (other, _) = listener.accept()?;
    one.set_nodelay(true)?;
    other.set_nodelay(true)?;
    Ok((one, other))
}

/// One thread writes at one end and reads at the other.
fn pair<S: Read + Write>((mut one, mut other): (S, S), size: usize) -> io::Result<f64> {
    let mut bytes = vec![1; size];
    let begin = Instant::now();
    for _ in 0..HOPS {
        one.write_all(&bytes)?;
        other.read_exact(&mut bytes)?;
    }
    Ok(micros(begin) / f64::from(HOPS))
}

/// Two threads of one CPU; a round trip has two hops.
fn ping_pong<S: Read + Write + Send>((mut one, mut other): (S, S), size: usize) -> io::Result<f64> {
    let mut bytes = vec![1; size];
    thread::scope(|scope| {
        let echo = scope.spawn(move || -> io::Result<()> {
            let mut bytes = vec![0; size];
            for _ in 0..HOPS {
                other.read_exact(&mut bytes)?;
                other.write_all(&bytes)?;
            }
            Ok(())
        });
        let begin = Instant::now();
        for _ in 0..HOPS {
            one.write_all(&bytes)?;
            one.read_exact(&mut bytes)?;
        }
        let taken = micros(begin);
        echo.join().map_err(|_| io::Error::other("the other thread panicked"))??;
        Ok(taken / f64::from(2 * HOPS))
    })
}

/// What shared memory does not save: the bytes are copied in and out.
fn copies(size: usize) -> f64 {
    let (mut from, mut ring, mut to) = (vec![1_u8; size], vec![0; size], vec![0; size]);
    let begin = Instant::now();
    for round in 0..HOPS {
        from[0] = round.to_le_bytes()[0];
        ring.copy_from_slice(std::hint::black_box(&from));
        to.copy_from_slice(std::hint::black_box(&ring));
        std::hint::black_box(&to);
    }
    micros(begin) / f64::from(HOPS)
}

/// Shared memory between two threads of one CPU that sleep until the other rings.
fn bell(size: usize) -> io::Result<f64> {
    let turn = AtomicU32::new(0); // even: the first one's
    let play = |mine: u32| -> io::Result<()> {
        for _ in 0..HOPS {
            let mut seen = turn.load(Ordering::Acquire);
            while seen % 2 != mine {
                match wait(&turn, Flags::empty(), seen, None) {
                    Ok(()) | Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
                seen = turn.load(Ordering::Acquire);
            }
            turn.store(seen.wrapping_add(1), Ordering::Release);
            wake(&turn, Flags::empty(), 1)?;
        }
        Ok(())
    };
    let begin = Instant::now();
    thread::scope(|scope| {
        let other = scope.spawn(|| play(1));
        play(0)?;
        other.join().map_err(|_| io::Error::other("the other thread panicked"))?
    })?;
    Ok(micros(begin) / f64::from(2 * HOPS) + copies(size))
}

fn micros(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1e6
}
