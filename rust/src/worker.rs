//! One worker: a thread that owns its clients, its lanes and its memory, and the turn it runs.

use crate::balance::Leaving;
use crate::client::Client;
use crate::clock::{monotonic, seconds};
use crate::closing::Closing;
use crate::commits::Commits;
use crate::events::{EVENTS, KIND_LISTENER, KIND_MAIL, event_data};
use crate::following::Tries;
use crate::instance::InstanceState;
use crate::lanes::Lanes;
use crate::locks::Locks;
use crate::look::Looks;
use crate::names::Recent;
use crate::net::{Io, Listener};
use crate::pending_subscriptions::Writer;
use crate::request::Request;
use crate::rounds::OwnRounds;
use crate::shared::{Shared, ToCoordinator};
use crate::spin::Spin;
use crate::split::Share;
use crate::stats::Counters;
use crate::subscriptions::Audience;
use crate::tally::Tally;
use rustix::event::epoll;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use slab::Slab;
use std::sync::Arc;

/// Bytes a client is read by, once a turn.
pub const CLIENT_READ: usize = 64 * 1024;
/// Nanoseconds for which a client's replies may wait for the rest of its pipeline: one write of
/// everything instead of one for each instance's share.
const HOLD_NANOSECONDS: u64 = 100_000;
/// A wait never lasts longer: idle clients and lanes are looked at this often.
pub(crate) const TICK_NANOSECONDS: u64 = 1_000_000_000;

/// A worker's whole state.
#[derive(Debug)]
pub struct Worker {
    /// Its number.
    pub index: usize,
    /// What all threads share.
    pub shared: Arc<Shared>,
    pub(crate) epoll: OwnedFd,
    pub(crate) listeners: Vec<Listener>,
    pub(crate) clients: Slab<Client>,
    pub(crate) lanes: Lanes,
    pub(crate) locks: Locks,
    pub(crate) commits: Commits,
    pub(crate) looks: Looks,
    pub(crate) tries: Tries,
    pub(crate) rounds: OwnRounds,
    /// Clients whose writes wait for pending subscriptions.
    pub(crate) writers: Vec<Writer>,
    pub(crate) instances: Vec<InstanceState>,
    /// Subscribers among its clients.
    pub(crate) audience: Audience,
    /// Clients in MONITOR, and lines for all monitors.
    pub(crate) monitors: Vec<usize>,
    pub(crate) lines: Vec<u8>,
    pub(crate) counters: Counters,
    pub(crate) tally: Tally,
    pub(crate) last_generation: u32,
    pub(crate) spin: Spin,

    /// Clients to read this turn, and in the next.
    pub(crate) ready: Vec<usize>,
    /// Lanes with commands to write.
    pub(crate) dirty_lanes: Vec<usize>,
    /// Lanes to read this turn.
    pub(crate) ready_lanes: Vec<usize>,
    /// Clients with replies to write.
    pub(crate) dirty: Vec<usize>,
    /// Replies that came out of order this turn: client and sequence number.
    pub(crate) early: Vec<(usize, u32)>,
    /// Clients that were denied a command in this turn, and its row.
    pub(crate) denied: Vec<(usize, u32)>,
    /// Lanes that were read this turn.
    pub(crate) filled: Vec<usize>,
    /// Lanes that are not read until their client reads.
    pub(crate) paused: Vec<usize>,
    /// Buffers for replies, used again and again.
    pub(crate) pool: Vec<Vec<u8>>,
    /// Clients whose replies are held back, and until when.
    pub(crate) held: Vec<usize>,
    pub(crate) held_until: u64,
    /// How many of `held` still are: the list also has those that were answered meanwhile.
    held_count: usize,
    /// Clients to look at when the turn ends.
    pub(crate) ending: Vec<usize>,
    /// Clients on their way to another worker.
    pub(crate) leaving: Vec<Leaving>,
    /// Lanes to close when the turn ends.
    pub(crate) broken: Vec<usize>,
    /// Those of them whose loss nobody has been told of.
    pub(crate) lost: Vec<usize>,

    /// Bytes just read from a client; its own buffer only keeps what cannot be forwarded yet.
    pub(crate) scratch: Vec<u8>,
    /// The same for those that upload.
    pub(crate) chunk: Vec<u8>,
    pub(crate) request: Request,
    /// The command looked up last.
    pub(crate) recent: Recent,
    /// Instance of each key of the command at hand.
    pub(crate) owners: Vec<u16>,
    /// What each instance gets of it.
    pub(crate) shares: Vec<Share>,
    /// A reply put together from those of several instances.
    pub(crate) merged: Vec<u8>,
    /// Bytes buffered for all clients.
    pub(crate) buffered: usize,
    pub(crate) mail_rang: bool,
    /// Where the next sweep of the clients begins.
    pub(crate) swept: usize,
    /// How often it was told of a user's rights.
    pub(crate) rights_seen: u64,
    /// The coordinator has answered clients this turn.
    pub(crate) coordinator_answered: bool,
    pub(crate) accept_waiting: bool,
    /// Monotonic nanoseconds, and whole seconds, at the beginning of the turn.
    pub(crate) now: u64,
    pub(crate) now_seconds: u64,
    pub(crate) next_tick: u64,
    /// When to close whoever is left, once asked to stop.
    pub(crate) stop_at: Option<u64>,
}

impl Worker {
    /// A worker that watches its mailbox and `listeners` (which only the first worker has); it
    /// `spins` if it has its CPU to itself.
    ///
    /// # Errors
    /// When the kernel refuses a descriptor.
    pub fn new(
        index: usize,
        shared: Arc<Shared>,
        listeners: Vec<Listener>,
        instances: Vec<InstanceState>,
        spins: bool,
    ) -> Result<Self, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let watch = |fd: rustix::fd::BorrowedFd, kind: u64, place: usize| {
            epoll::add(&epoll, fd, event_data(kind, place), epoll::EventFlags::IN)
        };
        watch(shared.doors[index].mailbox.bell(), KIND_MAIL, 0)?;
        watch(shared.doors[index].messages.bell(), KIND_MAIL, 1)?;
        for (place, listener) in listeners.iter().enumerate() {
            watch(listener.fd.as_fd(), KIND_LISTENER, place)?;
        }
        Ok(Self {
            index,
            tally: Tally::new(&shared.table),
            shared,
            epoll,
            listeners,
            clients: Slab::new(),
            lanes: Lanes::new(index),
            locks: Locks::default(),
            commits: Commits::default(),
            looks: Looks::default(),
            tries: Tries::default(),
            rounds: OwnRounds::default(),
            writers: Vec::new(),
            instances,
            audience: Audience::default(),
            monitors: Vec::new(),
            lines: Vec::new(),
            counters: Counters::default(),
            last_generation: 0,
            spin: Spin::new(spins),
            ready: Vec::new(),
            dirty_lanes: Vec::new(),
            ready_lanes: Vec::new(),
            dirty: Vec::new(),
            early: Vec::new(),
            denied: Vec::new(),
            filled: Vec::new(),
            paused: Vec::new(),
            pool: Vec::new(),
            held: Vec::new(),
            held_until: 0,
            held_count: 0,
            ending: Vec::new(),
            leaving: Vec::new(),
            broken: Vec::new(),
            lost: Vec::new(),
            scratch: Vec::with_capacity(CLIENT_READ),
            chunk: Vec::new(),
            request: Request::default(),
            recent: Recent::default(),
            owners: Vec::new(),
            shares: Vec::new(),
            merged: Vec::new(),
            buffered: 0,
            mail_rang: false,
            swept: 0,
            rights_seen: 0,
            coordinator_answered: false,
            accept_waiting: false,
            now: monotonic(),
            now_seconds: seconds(monotonic()),
            next_tick: 0,
            stop_at: None,
        })
    }

    /// Turns until told to stop and nobody is left.
    pub fn run(mut self) {
        let mut events = Vec::with_capacity(EVENTS);
        while !self.is_finished() {
            self.wait(&mut events);
            self.notice_rounds(&mut events);
            self.read_mail();
            self.hand_out_losses();
            self.let_writers_go_on();
            self.accept();
            self.read_clients();
            self.ask_for_round();
            self.post_lines();
            self.start_commits();
            self.begin_locks();
            self.write_lanes();
            self.read_lanes();
            self.hand_out_losses();
            self.keep_early_replies();
            self.settle_locks();
            self.advance_work();
            self.hand_out_losses();
            self.tick();
            self.write_clients();
            self.hand_out_losses();
            self.move_clients();
            self.close();
            self.end_rounds();
            self.publish();
        }
        self.shared.coordinator.post(ToCoordinator::Stopped(self.index));
    }

    /// Puts a client on the list of those to read.
    pub(crate) fn mark_ready(&mut self, place: usize) {
        let client = &mut self.clients[place];
        if !client.is_ready {
            client.is_ready = true;
            self.ready.push(place);
        }
    }

    /// Puts a client on the list of those to write to.
    pub(crate) fn mark_dirty(&mut self, place: usize) {
        let client = &mut self.clients[place];
        if !client.is_dirty {
            client.is_dirty = true;
            self.dirty.push(place);
        }
    }

    /// Puts a lane on the list of those to write to.
    pub(crate) fn mark_lane_dirty(&mut self, place: usize) {
        if let Some(lane) = self.lanes.get_mut(place)
            && !lane.is_dirty
        {
            lane.is_dirty = true;
            self.dirty_lanes.push(place);
        }
    }

    /// Lets a client's commands be taken again, from the next turn on.
    pub(crate) fn open_gate(&mut self, place: usize) {
        let client = &mut self.clients[place];
        client.gate = client.next_gate();
        if client.readable || !client.rx.is_empty() || client.executing.is_some() {
            self.mark_ready(place);
        }
    }

    /// Writes every lane that has commands, once.
    pub(crate) fn write_lanes(&mut self) {
        let mut dirty_lanes = std::mem::take(&mut self.dirty_lanes);
        for place in dirty_lanes.drain(..) {
            let Some(lane) = self.lanes.get_mut(place) else {
                continue;
            };
            lane.is_dirty = false;
            if lane.is_broken || lane.wants_write || !lane.can_write() {
                continue;
            }
            self.counters.lane_writes += 1;
            match lane.flush() {
                Io::Gone => self.break_lane(place),
                Io::Later | Io::Moved(_) => {
                    if lane.can_write() {
                        lane.wants_write = true;
                        let _ = self.watch_lane(place);
                    }
                    self.wake_lane_waiters(place);
                }
            }
        }
        put_back(&mut self.dirty_lanes, dirty_lanes);
    }

    /// Takes a lane out of service: what it owes will not come. The turn tells those who wait for it
    /// when its step ends.
    pub(crate) fn break_lane(&mut self, place: usize) {
        let Some(lane) = self.lanes.get(place) else {
            return;
        };
        if lane.is_broken {
            return;
        }
        self.counters.lanes_broken += 1;
        self.lanes.retire(place);
        self.broken.push(place);
        self.lost.push(place);
        self.wake_lane_waiters(place);
    }

    /// Closes what has ended. The only place where clients and lanes are removed.
    fn close(&mut self) {
        for place in std::mem::take(&mut self.broken) {
            self.lanes.close(place);
        }
        for place in std::mem::take(&mut self.ending) {
            if self.clients.get(place).is_some_and(|client| client.closing == Closing::Now) {
                self.remove_client(place);
            }
        }
    }

    /// Commits and searches go on: those whose lock holds, and those that take too long.
    fn advance_work(&mut self) {
        for token in std::mem::take(&mut self.commits.granted) {
            if !self.prepare_locked(token) {
                self.begin_look(token);
            }
        }
        self.look_after_looks();
        self.look_after_commits();
        if !self.commits.running.is_empty() || self.looks.len() > 0 {
            self.write_lanes(); // not only in the next turn
        }
    }

    fn publish(&mut self) {
        self.counters.turns += 1;
        self.counters.awake_nanoseconds += monotonic().saturating_sub(self.now);
        self.counters.lanes = self.lanes.len() as u64;
        self.counters.lanes_aside = self.lanes.count_aside() as u64;
        self.counters.clients = self.clients.len() as u64;
        self.counters.subscribers = self.audience.clients as u64;
        self.shared.doors[self.index].stats.publish(&self.counters);
    }

    fn is_finished(&self) -> bool {
        self.stop_at.is_some() && self.clients.is_empty()
    }

    /// Once a second: who has been idle for too long?
    fn tick(&mut self) {
        if self.now < self.next_tick && self.stop_at.is_none_or(|at| self.now < at) {
            return;
        }
        self.next_tick = self.now + TICK_NANOSECONDS;
        self.sweep();
        self.end_idle_clients();
        self.stop_leaving();
        self.look_after_scripts();
        self.forget_states();
        for place in self.lanes.idle(self.now_seconds) {
            self.lanes.close(place);
        }
        if !self.listeners.is_empty() {
            self.accept_waiting = true; // a pause after running out of descriptors ends here
        }
    }

    /// Begins a hold, or joins the one that runs.
    pub(crate) fn hold(&mut self, place: usize) {
        if self.held.is_empty() {
            self.held_until = self.now + HOLD_NANOSECONDS;
        }
        self.clients[place].is_held = true;
        self.held.push(place);
        self.held_count += 1;
    }

    /// Ends the hold of a client; nobody is woken for a hold that holds no one.
    pub(crate) fn release(&mut self, place: usize) {
        if std::mem::take(&mut self.clients[place].is_held) {
            self.held_count -= 1;
            if self.held_count == 0 {
                self.held.clear();
            }
        }
    }
}

/// Gives a list that was worked through its memory back; what was added meanwhile stays.
pub(crate) fn put_back<T>(list: &mut Vec<T>, mut emptied: Vec<T>) {
    emptied.append(list);
    *list = emptied;
}
