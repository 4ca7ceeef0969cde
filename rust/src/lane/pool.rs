//! All lanes of a worker, by state and instance, and what they have received.

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

/// Bytes a lane is read by; large, because values of 1 KB come in bulk.
const READ_CHUNK: usize = 128 * 1024;

/// Lanes of one worker; instances allow 10,000 connections.
const LANES_LIMIT: usize = 512;

/// What an instance answers while a script has run for too long.
const BUSY: &[u8] = b"-BUSY ";

/// Seconds after which an unused lane is closed.
const IDLE_SECONDS: u64 = 60;

/// The same for one that was only needed beside another.
const SPARE_SECONDS: u64 = 5;

/// All lanes of a worker.
#[derive(Debug, Default)]
pub struct Lanes {
    pub(crate) open: Slab<Lane>,
    /// What each lane has received, by place: apart from `open`, so that replies can be read
    /// here while lanes change.
    pub(crate) received: Received,
    pub(crate) sets: LaneSets,
    pub(crate) lists: LaneLists,
    /// Those for scripts, by set and instance.
    pub(crate) scripts: HashMap<(u32, usize), usize>,
    /// What the last such lane has left to the next.
    pub(crate) guards: HashMap<(u32, usize), Box<Fences>>,
    /// Whose they are.
    pub(crate) worker: usize,
    last_serial: u64,
    /// How many have something big.
    pub(crate) aside: usize,
}

/// As whom lanes are opened.
#[derive(Debug, Clone, Copy)]
pub struct Login<'a> {
    /// Names of users; a lane that is judged by the instance belongs to one.
    pub users: &'a Users,
    /// Of our own user, as whom a lane authenticates first.
    pub password: &'a [u8],
}

impl Lanes {
    /// None, of a worker.
    #[must_use]
    pub fn new(worker: usize) -> Self {
        Self { worker, ..Self::default() }
    }

    /// The set for a state; made if new.
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

    /// The same, to change it.
    pub fn open_lane_mut(&mut self, set: u32, instance: usize) -> Option<(usize, &mut Lane)> {
        let place = self.open_lane(set, instance)?;
        self.open.get_mut(place).map(|lane| (place, lane))
    }

    /// The lane at a place.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<&Lane> {
        self.open.get(place)
    }

    /// The lane at a place.
    pub fn get_mut(&mut self, place: usize) -> Option<&mut Lane> {
        self.open.get_mut(place)
    }

    /// How many lanes are open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// True if none is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// True if many more may be opened.
    #[must_use]
    pub fn has_plenty(&self) -> bool {
        self.open.len() < LANES_LIMIT / 2
    }

    /// True while somebody waits for a reply, and reads what comes.
    #[must_use]
    pub fn are_waited_for(&self) -> bool {
        self.open.iter().any(|(_, lane)| {
            (!lane.expects.is_empty() && !lane.is_paused)
                || lane.duty == Duty::Commit
                || !lane.questions.is_empty()
        })
    }

    /// Places of the lanes that nobody has used for a while.
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

    /// The lane to give up for a new one of `set`; never a shared one of that set: a command for
    /// several instances may just have reached it, and its place would then be another lane's. Nor one
    /// that was read this turn: an `Owed::Ready` may point into what it has received.
    fn least_used(&self, set: u32) -> Option<usize> {
        let may_go = |lane: &Lane| {
            lane.is_idle() && lane.start == 0 && (lane.set != set || lane.duty == Duty::Spare)
        };
        let idle = self.open.iter().filter(|(_, lane)| may_go(lane));
        idle.min_by_key(|(_, lane)| lane.last_used).map(|(place, _)| place)
    }

    /// Lets clients in its state share a lane.
    pub fn share(&mut self, place: usize) {
        self.set_duty(place, Duty::Shared);
        let lane = &self.open[place];
        *self.sets.lane_mut(lane.set, lane.instance) = u32::try_from(place).ok();
    }

    /// No new command will find this lane.
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
    /// When it cannot be reached, or too many lanes are open.
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
        // A new socket has room for so few bytes, or is not usable.
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

    /// Forgets a lane that was taken out of service; the socket closes.
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

    /// Takes a lane out of service at once: no new command will find it.
    pub fn retire(&mut self, place: usize) {
        self.open[place].is_broken = true;
        self.hide(place);
    }

    /// Bytes received by a lane this turn.
    #[must_use]
    pub fn received(&self, place: usize, start: u32, length: u32) -> &[u8] {
        &self.received.after(place, start as usize)[..length as usize]
    }

    /// Reads a lane once.
    pub fn fill(&mut self, place: usize) -> Io {
        let Some(lane) = self.open.get_mut(place) else { return Io::Later };
        let buffer = &mut self.received.0[place];
        let io = socket::read(&lane.fd, buffer, READ_CHUNK);
        // A short read has emptied the socket; the next byte will raise a new edge.
        // After a hang-up there is none: read on to the end.
        lane.readable = matches!(io, Io::Moved(read) if read >= READ_CHUNK || lane.hung_up);
        io
    }

    /// Passes the replies of the opening; true once all have come.
    ///
    /// # Errors
    /// `Broken` if one is not what it should be.
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

    /// Cuts the next reply: where it lies in `received`, and whose it is.
    ///
    /// # Errors
    /// `Broken` for anything but a reply that somebody waits for.
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

    /// Cuts what comes next, whosoever it is, once the opening has passed: where it lies in `received`.
    ///
    /// # Errors
    /// `Broken` for what is no reply.
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

    /// A lane, to change it, beside what all have received.
    pub fn lane_and_received(&mut self, place: usize) -> Option<(&mut Lane, &Received)> {
        self.open.get_mut(place).map(|lane| (lane, &self.received))
    }

    /// The beginning of a large reply that is not complete yet, and whose it is.
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

    /// True if a lane needs more care than to be read: something big is on it, or was.
    #[must_use]
    pub fn has_big(&self, place: usize) -> bool {
        let lane = &self.open[place];
        lane.duty != Duty::Shared || lane.cutter.announced() >= BIG
    }

    /// The bytes of `partial` have been handed on.
    pub fn take_partial(&mut self, place: usize) {
        let lane = &mut self.open[place];
        lane.start += lane.cutter.passed();
        lane.cutter.forget_passed();
    }

    /// Drops what was cut; called once at the end of a turn, when no `Owed::Ready` is left.
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
        lanes.open[old].start = 5; // a reply of so many bytes was cut, and may be handed out later
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
