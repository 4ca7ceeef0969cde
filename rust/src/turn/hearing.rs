//! Reads each lane once a turn: replies of the instances, and the events that belong to them.
//!
//! Older servers send a subscribed client the event of its own command before the reply. So while a
//! client listens to keyspace events, these are read in between: after all replies are read, before
//! any of them is delivered.

use crate::core::worker::Worker;
use crate::lane::lane::Lane;
use crate::net::socket::Io;
use crate::threads::letters::Mail;

impl Worker {
    /// Reads every ready lane once, and delivers the replies.
    pub(crate) fn read_lanes(&mut self) {
        let mut lanes = std::mem::take(&mut self.ready_lanes);
        lanes.retain(|&place| self.lanes.get(place).is_some_and(Lane::may_read));
        if self.shared.tells_events() {
            let found: Vec<_> = lanes.iter().map(|&at| (at, self.lanes.fill(at))).collect();
            self.filled = lanes;
            self.hear_events();
            for (place, read) in found {
                self.hand_out(place, read);
            }
        } else {
            for &place in &lanes {
                let read = self.lanes.fill(place);
                self.hand_out(place, read);
            }
            self.filled = lanes;
            self.hear_events();
        }
    }

    fn hand_out(&mut self, place: usize, read: Io) {
        match read {
            Io::Later => {}
            Io::Gone => self.break_lane(place),
            Io::Moved(_) if self.lanes.is_for_scripts(place) => self.cut_blocks(place),
            Io::Moved(_) if self.lanes.is_for_work(place) => self.cut_work(place),
            Io::Moved(_) => self.cut_replies(place),
        }
    }

    /// Reads the events of commands that the coordinator has just answered; true if there were such
    /// replies and a client may want their events.
    pub(crate) fn hear_before(&mut self, letters: &[Mail]) -> bool {
        let is_reply = |letter: &Mail| matches!(letter, Mail::Reply(..) | Mail::Run(..));
        let is_told = self.shared.tells_events() && letters.iter().any(is_reply);
        if is_told {
            self.coordinator_answered = true;
            self.hear_events();
        }
        self.read_messages();
        is_told
    }

    /// While a client tracks keys or listens to keyspace events: posts the events of commands
    /// before their replies leave.
    fn hear_events(&mut self) {
        let by_coordinator = std::mem::take(&mut self.coordinator_answered);
        if self.filled.is_empty() && !by_coordinator {
            return;
        }
        // An instance sends its invalidations before the reply: no need to ask for them.
        self.shared.hear();
        if !self.shared.tells_events() {
            return;
        }
        for instance in 0..self.shared.instances {
            let is_of = |place: &usize| {
                self.lanes.get(*place).is_some_and(|lane| lane.instance == instance)
            };
            if by_coordinator || self.filled.iter().any(is_of) {
                self.shared.hear_all_of(instance);
            }
        }
        self.read_messages();
    }
}
