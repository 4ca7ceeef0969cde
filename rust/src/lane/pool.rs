//! All lanes of a worker, by state and instance, and the bytes that they have received.

use crate::lane::lane::{self, BIG, BUFFER_KEEP, Duty, Expect, Lane, State, opening};
use crate::lane::lists::LaneLists;
use crate::lane::received::Received;
use crate::lane::script_fences::Fences;
use crate::lane::sets::LaneSets;
use crate::net::socket;
use crate::net::socket::Io;
use crate::resp::reply::{Broken, STRAY};
use crate::tables::users::Users;
use rustix::io::Errno;
use slab::Slab;
use std::collections::HashMap;

/// The bytes of one read; many, because values of 1 KB come in bulk.
const READ_CHUNK: usize = 128 * 1024;

/// The most lanes of one worker; an instance allows 10,000 connections.
const LANES_LIMIT: usize = 512;

/// The error of an instance while a script runs too long.
const BUSY: &[u8] = b"-BUSY ";

/// The seconds after which an unused lane is closed.
const IDLE_SECONDS: u64 = 60;

/// The same for a spare lane, which was needed in addition to others.
const SPARE_SECONDS: u64 = 5;

/// All lanes of a worker.
#[derive(Debug, Default)]
pub struct Lanes {
    pub(crate) open: Slab<Lane>,
    /// The bytes that each lane has received, by place. They are apart from `open`, so that replies
    /// can be read while lanes change.
    pub(crate) received: Received,
    pub(crate) sets: LaneSets,
    pub(crate) lists: LaneLists,
    /// The lanes for scripts, by set and instance.
    pub(crate) scripts: HashMap<(u32, usize), usize>,
    /// The sandbox users that a closed lane for scripts leaves to the next one.
    pub(crate) guards: HashMap<(u32, usize), Box<Fences>>,
    /// The worker that owns the lanes.
    pub(crate) worker: usize,
    last_serial: u64,
    /// The number of lanes used for large commands or replies.
    pub(crate) aside: usize,
}

/// The credentials with which lanes are opened.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// The names of users; each lane whose rights the instance checks belongs to one.
    pub users: &'a Users,
    /// The password of the proxy's own user, as which a lane authenticates first.
    pub password: &'a [u8],
}

impl Lanes {
    /// A worker's pool without lanes.
    #[must_use]
    pub fn new(worker: usize) -> Self {
        Self { worker, ..Self::default() }
    }

    /// The set for a state; created if new.
    pub fn set(&mut self, state: State, instances: usize) -> u32 {
        self.sets.of(state, instances)
    }

    /// The state of a set.
    #[must_use]
    pub fn state(&self, set: u32) -> State {
        self.sets.state(set)
    }

    /// The open lane of a set to an instance.
    #[must_use]
    pub fn open_lane(&self, set: u32, instance: usize) -> Option<usize> {
        self.sets.lane(set, instance)
    }

    /// The same, mutable.
    pub fn open_lane_mut(&mut self, set: u32, instance: usize) -> Option<(usize, &mut Lane)> {
        let place = self.open_lane(set, instance)?;
        self.open.get_mut(place).map(|lane| (place, lane))
    }

    /// The lane at a place.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&Lane> {
        self.open.get(place)
    }

    /// The lane at a place, mutable.
    pub fn get_mut(&mut self, place: usize) -> Option<&mut Lane> {
        self.open.get_mut(place)
    }

    /// The number of open lanes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// True if no lane is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// True if many more lanes may be opened.
    #[must_use]
    pub fn has_plenty(&self) -> bool {
        self.open.len() < LANES_LIMIT / 2
    }

    /// True while a reply is awaited on a lane that is read.
    #[must_use]
    pub fn are_waited_for(&self) -> bool {
        self.open.iter().any(|(_, lane)| {
            (!lane.expects.is_empty() && !lane.is_paused)
                || lane.duty == Duty::Commit
                || !lane.questions.is_empty()
        })
    }

    /// The places of the lanes that have been unused for a while.
    #[must_use]
    pub fn idle(&self, now: u64) -> Vec<usize> {
        let patience = |lane: &Lane| match lane.duty {
            Duty::Spare => SPARE_SECONDS,
            _ => IDLE_SECONDS,
        };
        self.places(|lane| lane.is_idle() && now > lane.last_used + patience(lane))
    }

    pub(crate) fn places(&self, wanted: impl Fn(&Lane) -> bool) -> Vec<usize> {
        self.open.iter().filter(|(_, lane)| wanted(lane)).map(|(place, _)| place).collect()
    }

    /// The lane to close in favour of a new one of `set`. Never a shared lane of that set: part of
    /// a command for several instances may just have been put on it, and its place would then be
    /// another lane's. Nor a lane that was read in this turn: an `Owed::Ready` may point into its
    /// received bytes.
    fn least_used(&self, set: u32) -> Option<usize> {
        let may_go = |lane: &Lane| {
            lane.is_idle() && lane.start == 0 && (lane.set != set || lane.duty == Duty::Spare)
        };
        let idle = self.open.iter().filter(|(_, lane)| may_go(lane));
        idle.min_by_key(|(_, lane)| lane.last_used).map(|(place, _)| place)
    }

    /// Makes a lane the shared one of its state.
    pub fn share(&mut self, place: usize) {
        self.set_duty(place, Duty::Shared);
        let lane = &self.open[place];
        *self.sets.lane_mut(lane.set, lane.instance) = u32::try_from(place).ok();
    }

    /// Hides a lane from new commands.
    pub(crate) fn hide(&mut self, place: usize) {
        self.hide_from_scripts(place);
        let lane = &self.open[place];
        let current = self.sets.lane_mut(lane.set, lane.instance);
        if *current == u32::try_from(place).ok() {
            *current = None;
        }
    }

    /// Connects to an instance and sends the opening. The caller gives the lane a duty.
    ///
    /// # Errors
    /// If the instance cannot be reached, or too many lanes are open.
    pub fn open(
        &mut self,
        set: u32,
        instance: usize,
        socket: &str,
        login: Login,
        now: u64,
    ) -> Result<usize, Errno> {
        let state = self.state(set);
        let user = login.users.name(state.user);
        if state.user != 0 && user.is_none() {
            return Err(Errno::PERM);
        }
        let is_full = self.open.len() >= LANES_LIMIT;
        let mut connected = if is_full { Err(Errno::MFILE) } else { socket::connect_unix(socket) };
        if matches!(connected, Err(Errno::MFILE | Errno::NFILE)) {
            let unused = self.least_used(set).ok_or(Errno::MFILE)?;
            self.close(unused);
            connected = socket::connect_unix(socket);
        }
        let fd = connected?;
        self.last_serial += 1;
        let name = lane::name(self.worker, self.last_serial);
        let (hello, opening) = opening(state, &name, user.as_deref(), login.password);
        // A new socket has room for this few bytes; if not, it is unusable.
        if socket::write(&fd, &hello) != Io::Moved(hello.len()) {
            return Err(Errno::CONNRESET);
        }
        let mut lane = Lane::new(fd, instance, set, opening, now);
        lane.serial = self.last_serial;
        let place = self.open.insert(lane);
        self.list(place);
        if self.received.0.len() <= place {
            self.received.0.resize_with(place + 1, Vec::new);
        }
        Ok(place)
    }

    /// Removes a lane that was retired, which closes the socket.
    pub fn close(&mut self, place: usize) {
        self.hide(place);
        self.set_duty(place, Duty::Spare);
        self.unlist(place);
        let lane = self.open.remove(place);
        if let Some(fences) = lane.scripts {
            self.guards.insert((lane.set, lane.instance), Box::new(fences.renewed()));
        }
        self.received.0[place] = Vec::new();
    }

    /// Retires a lane at once: it gets no new commands.
    pub fn retire(&mut self, place: usize) {
        self.open[place].is_broken = true;
        self.hide(place);
    }

    /// Bytes that a lane has received in this turn.
    #[must_use]
    pub fn received(&self, place: usize, start: u32, length: u32) -> &[u8] {
        &self.received.after(place, start as usize)[..length as usize]
    }

    /// Reads a lane once.
    pub fn fill(&mut self, place: usize) -> Io {
        let Some(lane) = self.open.get_mut(place) else { return Io::Later };
        let buffer = &mut self.received.0[place];
        let io = socket::read(&lane.fd, buffer, READ_CHUNK);
        // A short read has emptied the socket: the poller reports the next byte. After a hang-up it
        // reports nothing, so the lane is read to the end.
        lane.readable = matches!(io, Io::Moved(read) if read >= READ_CHUNK || lane.hung_up);
        io
    }

    /// Consumes the replies to the opening; true once all have come.
    ///
    /// # Errors
    /// `Broken` if one is an error.
    pub(crate) fn pass_opening(&mut self, place: usize) -> Result<bool, Broken> {
        let lane = &mut self.open[place];
        while lane.opening > 0 {
            let buffer = self.received.after(place, lane.start);
            let Some(length) = lane.cutter.cut(buffer)? else { return Ok(false) };
            // +OK, or the map of HELLO
            if !matches!(buffer[0], b'+' | b'%') {
                lane.busy = buffer.starts_with(BUSY).then(|| buffer[..length].to_vec());
                return Err(Broken("opening refused"));
            }
            lane.start += length;
            lane.opening -= 1;
        }
        Ok(true)
    }

    /// Cuts the next reply. Returns its place in `received`, and its destination.
    ///
    /// # Errors
    /// `Broken` for anything but an expected reply.
    pub fn next_reply(&mut self, place: usize) -> Result<Option<(u32, u32, Expect)>, Broken> {
        if !self.pass_opening(place)? {
            return Ok(None);
        }
        let Some(&expect) = self.open[place].expects.front() else {
            return if self.has_more(place) { Err(STRAY) } else { Ok(None) };
        };
        let Some((start, length)) = self.cut_next(place)? else { return Ok(None) };
        let lane = &mut self.open[place];
        lane.expects.pop_front();
        lane.answered += 1;
        Ok(Some((start, length, expect)))
    }

    /// Cuts the next reply, for any destination, once the opening is done. Returns its place in
    /// `received`.
    ///
    /// # Errors
    /// `Broken` for bytes that are no reply.
    pub(crate) fn cut_next(&mut self, place: usize) -> Result<Option<(u32, u32)>, Broken> {
        let lane = &mut self.open[place];
        let buffer = self.received.after(place, lane.start);
        if buffer.is_empty() {
            return Ok(None);
        }
        let Some(length) = lane.cutter.cut(buffer)? else { return Ok(None) };
        let start = lane.start;
        lane.start += length;
        let number = |offset| u32::try_from(offset).map_err(|_| Broken("buffer over 4 GB"));
        Ok(Some((number(start)?, number(length)?)))
    }

    /// A lane, mutable, along with the bytes that all lanes have received.
    pub fn lane_and_received(&mut self, place: usize) -> Option<(&mut Lane, &Received)> {
        self.open.get_mut(place).map(|lane| (lane, &self.received))
    }

    /// The beginning of a large reply that is not complete, and its destination.
    #[must_use]
    pub fn partial(&self, place: usize, at_least: usize) -> Option<(u32, u32, Expect)> {
        let lane = &self.open[place];
        let length = lane.cutter.passed();
        if lane.opening > 0 || length < at_least {
            return None;
        }
        let number = |offset: usize| u32::try_from(offset).ok();
        Some((number(lane.start)?, number(length)?, *lane.expects.front()?))
    }

    /// True if a lane needs more than to be read, because it has or had something large.
    #[must_use]
    pub fn has_big(&self, place: usize) -> bool {
        let lane = &self.open[place];
        lane.duty != Duty::Shared || lane.cutter.announced() >= BIG
    }

    /// The bytes of `partial` have been passed on.
    pub fn take_partial(&mut self, place: usize) {
        let lane = &mut self.open[place];
        lane.start += lane.cutter.passed();
        lane.cutter.forget_passed();
    }

    /// Drops the bytes that were cut. Called once at the end of a turn, when no `Owed::Ready` is
    /// left.
    pub fn compact(&mut self, place: usize) {
        let lane = &mut self.open[place];
        let buffer = &mut self.received.0[place];
        if lane.start == buffer.len() {
            if buffer.capacity() > BUFFER_KEEP {
                *buffer = Vec::new();
            } else {
                buffer.clear();
            }
        } else {
            buffer.drain(..lane.start);
        }
        lane.start = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::Lanes;
    use crate::lane::lane::{Duty, Lane, State};
    use rustix::net::{AddressFamily, SocketType, socket};

    pub(crate) fn add(lanes: &mut Lanes, set: u32, last_used: u64) -> usize {
        let fd = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("a socket");
        let place = lanes.open.insert(Lane::new(fd, 0, set, 0, last_used));
        lanes.list(place);
        place
    }

    #[test]
    fn a_lane_that_was_read_this_turn_is_not_given_up_for_another() {
        let mut lanes = Lanes::default();
        let set = lanes.set(State::default(), 1);
        let (old, new) = (add(&mut lanes, set, 1), add(&mut lanes, set, 2));
        assert_eq!(lanes.least_used(set), Some(old));
        lanes.open[old].start = 5; // a reply of this length was cut, and may still be delivered
        assert_eq!(lanes.least_used(set), Some(new));
        lanes.open[new].start = 5;
        assert_eq!(lanes.least_used(set), None);
    }

    #[test]
    fn lanes_are_found_by_duty_and_by_instance_as_long_as_they_are_there() {
        let mut lanes = Lanes::default();
        let set = lanes.set(State::default(), 1);
        let places = [add(&mut lanes, set, 1), add(&mut lanes, set, 1)];
        let spare = |lanes: &Lanes| lanes.of_duty(Duty::Spare, set, 0).collect::<Vec<_>>();
        assert_eq!((spare(&lanes), lanes.of_instance(0)), (places.to_vec(), places.to_vec()));
        lanes.set_duty(places[0], Duty::LockedPops);
        assert_eq!(
            (spare(&lanes), lanes.find_for_pops(set, 0)),
            (vec![places[1]], Some(places[0]))
        );
        lanes.open[places[0]].is_broken = true;
        assert_eq!(lanes.find_for_pops(set, 0), None);
        lanes.unlist(places[0]);
        assert_eq!(lanes.of_instance(0), [places[1]]);
    }
}
