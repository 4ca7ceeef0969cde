//! The times at which an open load sends: random for each client, independent of the server.
//!
//! A closed loop waits for a slow server, and so never sends what would have had to wait
//! (coordinated omission). Here the times are fixed beforehand: exponential gaps, as independent
//! users cause them. If a batch is due while its client still waits for replies, it is sent as soon
//! as these have come, and its latency counts from the time when it was due.
//! as soon as these are in, and its latency counts from the moment when it was due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::config::LoadConfig;

/// The next time of every idle client of one thread.
#[derive(Debug)]
pub struct Pace {
    gap: f64, // ns between two batches of one client, on average
    random: SmallRng,
    waiting: BinaryHeap<Reverse<(u64, usize)>>, // due, token
}

impl Pace {
    /// The pace for `config`; `None` for a closed loop.
    #[allow(clippy::cast_precision_loss)] // counts of commands and clients
    pub fn new(config: &LoadConfig, seed: u64) -> Option<Self> {
        let rate = config.rate?;
        let gap = (config.connections * config.pipeline) as f64 / rate * 1e9;
        let random = SmallRng::seed_from_u64(seed ^ 0x9ACE);
        Some(Self { gap, random, waiting: BinaryHeap::new() })
    }

    /// The time after `before`.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // at most hours, in ns
    pub fn after(&mut self, before: u64) -> u64 {
        let share: f64 = self.random.random(); // from 0 to below 1
        before.saturating_add((-(1.0 - share).ln() * self.gap) as u64)
    }

    /// Notes that `token` must send at `due`.
    pub fn wait(&mut self, token: usize, due: u64) {
        self.waiting.push(Reverse((due, token)));
    }

    /// A client that is due, and its time.
    pub fn due(&mut self, now: u64) -> Option<(usize, u64)> {
        let Reverse((due, token)) = *self.waiting.peek()?;
        (due <= now).then(|| {
            self.waiting.pop();
            (token, due)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        let random = SmallRng::seed_from_u64(1);
        Pace { gap: 1000.0, random, waiting: BinaryHeap::new() }
    }

    #[test]
    #[allow(clippy::cast_precision_loss)]
    fn gaps_are_random_and_right_on_average() {
        let mut pace = pace();
        let gaps: Vec<u64> = (0..20_000).map(|_| pace.after(0)).collect();
        let mean = gaps.iter().sum::<u64>() as f64 / gaps.len() as f64;
        assert!((950.0..1050.0).contains(&mean), "{mean}");
        let short = gaps.iter().filter(|gap| **gap < 105).count(); // one in ten, if exponential
        assert!((1800..2200).contains(&short), "{short}");
    }

    #[test]
    fn clients_come_in_the_order_of_their_moments() {
        let mut pace = pace();
        for (token, due) in [(0, 30), (1, 10), (2, 20)] {
            pace.wait(token, due);
        }
        assert_eq!((pace.due(9), pace.due(25), pace.due(25)), (None, Some((1, 10)), Some((2, 20))));
        assert_eq!((pace.due(25), pace.due(30)), (None, Some((0, 30))));
    }
}
