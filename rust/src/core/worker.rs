//! A worker: a thread that owns its clients, its lanes and its memory; and basic operations on
//! these.

use crate::base::client_key::ClientKey;
use crate::base::clock::{monotonic, seconds};
use crate::catalog::index::Recent;
use crate::client::client::Client;
use crate::client::gate::Gate;
use crate::lane::instance::InstanceState;
use crate::lane::lane::State;
use crate::lane::pool::Lanes;
use crate::net::poller::{KIND_LISTENER, KIND_MAIL, event_data};
use crate::net::socket::{Io, Listener};
use crate::net::spin::Spin;
use crate::resp::request::Request;
use crate::routing::parts::InstancePart;
use crate::tables::counters::Counters;
use crate::threads::shared::Shared;
use crate::work::attempts::Attempts;
use crate::work::audience::Audience;
use crate::work::commits::Commits;
use crate::work::leaving::Leaving;
use crate::work::lock_view::Locks;
use crate::work::locked_pops::LockedPops;
use crate::work::rounds::OwnRounds;
use crate::work::tally::Tally;
use crate::work::writers::Writer;
use rustix::event::epoll;
use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use slab::Slab;
use std::sync::Arc;

/// Bytes that are read from a client at most, once a turn.
pub const CLIENT_READ: usize = 64 * 1024;

/// Nanoseconds for which a client's replies may wait for the rest of its pipeline. Then everything
/// goes out in one write instead of one for each instance's part.
const HOLD_NANOSECONDS: u64 = 100_000;

/// A wait never lasts longer than this: idle clients and lanes are checked this often.
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
    pub(crate) locked_pops: LockedPops,
    pub(crate) attempts: Attempts,
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

    /// Clients to read in this turn and in the next.
    pub(crate) ready: Vec<usize>,
    /// Lanes with commands to write.
    pub(crate) dirty_lanes: Vec<usize>,
    /// Lanes to read this turn.
    pub(crate) ready_lanes: Vec<usize>,
    /// Clients with replies to write.
    pub(crate) dirty: Vec<usize>,
    /// Replies that arrived out of order this turn: client and sequence number.
    pub(crate) early: Vec<(usize, u32)>,
    /// Clients that were denied a command in this turn, and the command's row.
    pub(crate) denied: Vec<(usize, u32)>,
    /// Lanes that were read this turn.
    pub(crate) filled: Vec<usize>,
    /// Lanes that are not read until their client has read.
    pub(crate) paused: Vec<usize>,
    /// Buffers for replies, for reuse.
    pub(crate) pool: Vec<Vec<u8>>,
    /// Clients whose replies are held back, and until when.
    pub(crate) held: Vec<usize>,
    pub(crate) held_until: u64,
    /// How many of `held` are still held: the list also has clients that were released meanwhile.
    held_count: usize,
    /// Clients to check when the turn ends.
    pub(crate) ending: Vec<usize>,
    /// Clients on their way to another worker.
    pub(crate) leaving: Vec<Leaving>,
    /// Lanes to close when the turn ends.
    pub(crate) broken: Vec<usize>,
    /// The broken lanes whose loss was not reported yet.
    pub(crate) lost: Vec<usize>,

    /// Bytes just read from a client. The client's own buffer keeps only what cannot be forwarded
    /// yet.
    pub(crate) scratch: Vec<u8>,
    /// The same for clients that upload.
    pub(crate) chunk: Vec<u8>,
    pub(crate) request: Request,
    /// The command looked up last.
    pub(crate) recent: Recent,
    /// The instance of each key of the current command.
    pub(crate) owners: Vec<u16>,
    /// The part of it for each instance.
    pub(crate) shares: Vec<InstancePart>,
    /// A reply that is merged from those of several instances.
    pub(crate) merged: Vec<u8>,
    /// Bytes buffered for all clients.
    pub(crate) buffered: usize,
    pub(crate) mail_rang: bool,
    /// Where the next sweep of the clients begins.
    pub(crate) swept: usize,
    /// How many changes of users' rights this worker has received.
    pub(crate) rights_seen: u64,
    /// The coordinator has answered clients this turn.
    pub(crate) coordinator_answered: bool,
    pub(crate) accept_waiting: bool,
    /// Monotonic nanoseconds, and whole seconds, at the beginning of the turn.
    pub(crate) now: u64,
    pub(crate) now_seconds: u64,
    pub(crate) next_tick: u64,
    /// When to close the clients that are left after a request to stop.
    pub(crate) stop_at: Option<u64>,
}

impl Worker {
    /// A worker that watches its mailbox and `listeners` (which only the first worker has). It
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
            locked_pops: LockedPops::default(),
            attempts: Attempts::default(),
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

    /// Allows a client's commands to be taken again, from the next turn on.
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

    /// Takes a lane out of service: its owed replies will not come. The clients that wait for it
    /// get their errors when this step of the turn ends.
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

    /// Begins a hold, or joins the one that runs.
    pub(crate) fn hold(&mut self, place: usize) {
        if self.held.is_empty() {
            self.held_until = self.now + HOLD_NANOSECONDS;
        }
        self.clients[place].is_held = true;
        self.held.push(place);
        self.held_count += 1;
    }

    /// Ends the hold of a client. When no client is held any more, the worker is not woken for it.
    pub(crate) fn release(&mut self, place: usize) {
        if std::mem::take(&mut self.clients[place].is_held) {
            self.held_count -= 1;
            if self.held_count == 0 {
                self.held.clear();
            }
        }
    }

    /// The name by which the coordinator knows a client of this worker.
    pub(crate) fn key(&self, place: usize) -> ClientKey {
        let generation = self.clients[place].generation;
        ClientKey { worker: self.index, place, generation }
    }

    /// Lets clients that wait for a full lane go on, once it has room.
    pub(crate) fn wake_lane_waiters(&mut self, place: usize) {
        let Some(lane) = self.lanes.get_mut(place) else {
            return;
        };
        if lane.waiting.is_empty() || (lane.is_full() && !lane.is_broken) {
            return;
        }
        let count = lane.room().min(lane.waiting.len());
        let woken: Vec<(u32, u32)> = lane.waiting.drain(..count).collect();
        self.wake(woken);
    }

    /// Lets the clients that still wait for a lane try again.
    pub(crate) fn wake(&mut self, waiting: Vec<(u32, u32)>) {
        for (client, generation) in waiting {
            let client = client as usize;
            if self
                .clients
                .get(client)
                .is_some_and(|known| known.generation == generation && known.gate == Gate::Lane)
            {
                self.open_gate(client);
            }
        }
    }

    pub(crate) fn state_of(&self, place: usize) -> State {
        self.lanes.state(self.clients[place].lane_set)
    }

    pub(crate) fn change_state(&mut self, place: usize, change: impl FnOnce(&mut State)) {
        let mut state = self.state_of(place);
        change(&mut state);
        let instances = self.shared.instances;
        let client = &mut self.clients[place];
        client.lane_set = self.lanes.set(state, instances);
        client.is_resp2_subscriber = client.subscriptions.is_some() && !state.resp3;
    }
}

/// Gives a list back its memory after it was processed; what was added meanwhile stays.
pub(crate) fn put_back<T>(list: &mut Vec<T>, mut emptied: Vec<T>) {
    emptied.append(list);
    *list = emptied;
}
