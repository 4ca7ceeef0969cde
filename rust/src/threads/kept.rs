//! Messages of writes under a lock. They are kept back until it is certain that these writes hold.

use crate::tables::kept_messages::What;
use crate::threads::shared::Shared;

impl Shared {
    /// Publishes the events and messages that were kept for a command, step by step.
    pub fn tell_kept(&self, id: u64) {
        let mut all = self.upstreams.kept();
        let (told, ended) = all.end(id);
        for what in told.into_iter().map(|(_, what)| what).chain(ended) {
            self.tell_one(what);
        }
    }

    /// Drops them; only the events of expired keys are published.
    pub fn forget_kept(&self, id: u64) {
        let mut all = self.upstreams.kept();
        for what in all.end(id).1 {
            self.tell_one(what);
        }
    }

    /// Some keys were not lent after all: publishes their events that were kept.
    pub fn give_back(&self, id: u64, db: u64, keys: Vec<Vec<u8>>) {
        let mut all = self.upstreams.kept();
        for key in keys {
            for what in all.give_back(id, &(db, key)) {
                self.tell_one(what);
            }
        }
    }

    fn tell_one(&self, what: What) {
        match what {
            What::Published(kind, channel, payload) => {
                self.registry.publish(kind, &channel, &payload, &self.doors);
            }
            What::Heard(kind, name, frame) => {
                self.registry.forward(&[(kind, &name, &frame)], &self.doors);
            }
        }
    }
}
