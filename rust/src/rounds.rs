//! Rounds: every worker has read what its clients had sent when the round was asked for.
//!
//! Who has sent SUBSCRIBE hears what is published by commands that are sent later, as on one server.
//! Two workers read their clients at different times; so a PUBLISH waits for a round:
//!
//! ```text
//! PUBLISH was read ─► the turn's publishers ask for a round ─► workers that have clients are woken
//!                  ─► each looks at its sockets, reads them, ends its turn ─► the last one tells who asked
//!                  ─► PUBLISH is taken again, and counts whoever is subscribed
//! ```
//! Who wants no round pays one look at a number, a turn.

use crate::client::{Client, Gate};
use crate::closing::Closing;
use crate::shared::{Door, Mail, Shared};
use crate::worker::Worker;
use rustix::event::epoll;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What all workers know of rounds.
#[derive(Debug)]
pub struct Rounds {
    /// The newest one.
    asked: AtomicU64,
    /// By worker: the newest one that it has ended.
    ended: Vec<AtomicU64>,
    /// Connections that workers have handed to each other so far.
    handed: AtomicU64,
    /// Which rounds are not over, and which worker asked for them.
    open: Mutex<Vec<(u64, usize)>>,
}

impl Rounds {
    /// None so far.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            asked: AtomicU64::new(0),
            ended: (0..workers).map(|_| AtomicU64::new(0)).collect(),
            handed: AtomicU64::new(0),
            open: Mutex::default(),
        }
    }

    /// A connection is about to be handed to another worker: who has read everything may get some that
    /// he has not.
    pub(crate) fn note_handed(&self) {
        self.handed.fetch_add(1, SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(u64, usize)>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_over(&self, round: u64, doors: &[Door]) -> bool {
        let has_ended = |index: usize| self.ended[index].load(SeqCst) >= round;
        doors.iter().enumerate().all(|(index, door)| has_ended(index) || !is_concerned(index, door))
    }
}

/// Whether clients of this worker may have sent something: the first one also has those to come.
fn is_concerned(index: usize, door: &Door) -> bool {
    index == 0 || door.clients.load(Relaxed) > 0
}

impl Shared {
    /// Whether any other worker has clients.
    fn has_others(&self, worker: usize) -> bool {
        let mut doors = self.doors.iter().enumerate();
        doors.any(|(index, door)| index != worker && is_concerned(index, door))
    }

    /// Begins a round for a worker.
    fn ask_for_round(&self, worker: usize) -> u64 {
        let mut open = self.rounds.lock();
        let round = self.rounds.asked.fetch_add(1, SeqCst) + 1;
        open.push((round, worker));
        drop(open);
        for (index, door) in self.doors.iter().enumerate() {
            if index != worker && is_concerned(index, door) {
                door.mailbox.post(Mail::Round);
            }
        }
        round
    }

    /// A worker has ended all rounds up to this one: tells who waits for no other.
    fn end_rounds(&self, worker: usize, round: u64) {
        self.rounds.ended[worker].store(round, SeqCst);
        self.rounds.lock().retain(|&(open, asker)| {
            let is_over = self.rounds.is_over(open, &self.doors);
            if is_over {
                self.doors[asker].mailbox.post(Mail::Round);
            }
            !is_over
        });
    }
}

/// What a worker knows of rounds.
#[derive(Debug, Default)]
pub(crate) struct OwnRounds {
    /// Clients that ask for one this turn.
    asking: Vec<Publisher>,
    /// Those that were asked for, oldest first.
    waiting: VecDeque<Round>,
    /// The newest one that it reads its clients for, and that it has ended.
    noticed: u64,
    ended: u64,
}

/// A client whose next command waits.
#[derive(Debug, Clone, Copy)]
struct Publisher {
    place: usize,
    generation: u32,
    /// How much of what it has sent was read.
    read: u64,
}

#[derive(Debug)]
struct Round {
    number: u64,
    /// How many connections had been handed on when it began.
    handed: u64,
    publishers: Vec<Publisher>,
    /// It repeats another, during which connections were handed on.
    is_second: bool,
}

impl Worker {
    /// True, and the gate is shut, until all workers have read what was sent before this client's command.
    /// One round does for all that was read of the client at once.
    pub(crate) fn must_let_others_read(&mut self, place: usize) -> bool {
        if !self.shared.has_others(self.index) {
            return false;
        }
        let client = &mut self.clients[place];
        let read = client.session.input_bytes;
        if client.session.read_by_all == read || client.executing.is_some() {
            return false;
        }
        client.gate = Gate::Round;
        let generation = client.generation;
        self.rounds.asking.push(Publisher { place, generation, read });
        true
    }

    /// Before clients are read: if a round was asked for, takes in which sockets are ready by now.
    #[inline]
    pub(crate) fn notice_rounds(&mut self, events: &mut Vec<epoll::Event>) {
        let asked = self.shared.rounds.asked.load(SeqCst);
        if asked != self.rounds.ended {
            self.rounds.noticed = asked;
            self.look_at_sockets(events);
        }
    }

    /// Once clients were read: begins a round for those who need one.
    pub(crate) fn ask_for_round(&mut self) {
        if !self.rounds.asking.is_empty() {
            let publishers = std::mem::take(&mut self.rounds.asking);
            self.begin_round(publishers, false);
        }
    }

    fn begin_round(&mut self, publishers: Vec<Publisher>, is_second: bool) {
        let handed = self.shared.rounds.handed.load(SeqCst);
        let number = self.shared.ask_for_round(self.index);
        // What our own clients sent earlier has been read earlier, unless others ask, too.
        if number == self.rounds.noticed + 1 {
            self.rounds.noticed = number;
        } else {
            self.shared.doors[self.index].mailbox.post(Mail::Round);
        }
        self.rounds.waiting.push_back(Round { number, handed, publishers, is_second });
    }

    /// When a turn ends: what it has read was all there was.
    #[inline]
    pub(crate) fn end_rounds(&mut self) {
        if self.rounds.noticed != self.rounds.ended {
            self.rounds.ended = self.rounds.noticed;
            self.shared.end_rounds(self.index, self.rounds.ended);
        }
    }

    /// A client that still waits for others to read, or to hear.
    pub(crate) fn waits_at_round(&mut self, place: usize, generation: u32) -> Option<&mut Client> {
        let client = self.clients.get_mut(place)?;
        let is_it = (client.generation, client.gate) == (generation, Gate::Round);
        (is_it && client.closing == Closing::No).then_some(client)
    }

    /// Lets those go on whose rounds are over.
    pub(crate) fn go_on_after_rounds(&mut self) {
        while let Some(round) = self.rounds.waiting.front()
            && self.shared.rounds.is_over(round.number, &self.shared.doors)
            && let Some(round) = self.rounds.waiting.pop_front()
        {
            if !round.is_second && self.shared.rounds.handed.load(SeqCst) != round.handed {
                self.begin_round(round.publishers, true);
                continue;
            }
            for Publisher { place, generation, read } in round.publishers {
                if let Some(client) = self.waits_at_round(place, generation) {
                    client.session.read_by_all = read;
                    self.open_gate(place);
                }
            }
        }
    }
}
