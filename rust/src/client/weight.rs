//! The cost of a client, and whether it may move to another worker.

use crate::client::client::Client;
use crate::client::closing::Closing;

/// The bytes that cost about as much as a command.
const COMMAND_BYTES: u64 = 1024;

impl Client {
    /// The cost so far.
    fn cost(&self) -> u64 {
        let session = &self.session;
        session.commands + (session.input_bytes + session.output_bytes) / COMMAND_BYTES
    }

    /// Computes the recent cost; called once a second.
    pub(crate) fn weigh(&mut self) {
        let cost = self.cost();
        self.session.lately = cost - self.session.cost_before;
        self.session.cost_before = cost;
    }

    /// The cost since the last weighing but one.
    pub(crate) fn weight(&self) -> u64 {
        self.session.lately + self.cost() - self.session.cost_before
    }

    /// True unless something refers to the client by its place.
    pub(crate) fn may_move(&self, may_be_named: bool) -> bool {
        self.closing == Closing::No
            && self.executing.is_none()
            && self.upload.is_none()
            && !self.pauses_lane
            && self.subscriptions.is_none()
            && !self.is_watching
            && !self.is_tracking
            && !self.session.monitor.is_on
            && self.session.verdict.is_none()
            && !may_be_named
    }
}
