//! What a client is told of its subscriptions, once the instances are subscribed.
//!
//! ```text
//! SUBSCRIBE a ─► counts at once; the coordinator subscribes the instances ─► told, in its turn
//! SUBSCRIBE b ─► the same, while that of a waits
//! ```
//! What is published on a name reaches whoever has sent its SUBSCRIBE before, so these do not wait for
//! each other: a client that names one channel after the other, each for an answer that it is about to
//! ask for, would lose answers while an instance is slow. All other commands wait: they may change
//! what somebody hears of.

use crate::base::client_key::ClientKey;
use crate::catalog::channels::{Kind, Name, Refused};
use crate::client::closing::Closing;
use crate::client::confirmation::Confirmation;
use crate::client::gate::Gate;
use crate::client::owed::Owed;
use crate::core::worker::Worker;
use crate::resp::reply::push_error;

impl Worker {
    /// Tells a client of its subscriptions, behind what it is to be told before. Whoever wants no
    /// replies is told, too.
    pub(crate) fn confirm(&mut self, place: usize, confirmation: Vec<u8>) {
        let client = &mut self.clients[place];
        if client.session.confirmations.is_empty() {
            client.out.extend_from_slice(&confirmation);
            client.skip_nothing();
        } else {
            self.owe_confirmation(place, confirmation, true);
        }
        self.mark_dirty(place);
    }

    /// Tells it once `confirm_late` is called with this number.
    pub(crate) fn confirm_later(&mut self, place: usize, confirmation: Vec<u8>) -> u32 {
        let client = &mut self.clients[place];
        // The rest of a transaction waits, as ever.
        client.gate =
            if client.executing.is_some() { Gate::Coordinator } else { Gate::Subscribing };
        self.owe_confirmation(place, confirmation, false)
    }

    fn owe_confirmation(&mut self, place: usize, bytes: Vec<u8>, is_due: bool) -> u32 {
        let client = &mut self.clients[place];
        client.held += bytes.len();
        let sequence = client.owe(Owed::Waiting(client.last_row()));
        client.session.confirmations.push_back(Confirmation { sequence, bytes, is_due });
        sequence
    }

    /// The instances are subscribed: now the client is told. Or a script runs too long at one: then it is
    /// told so, and subscribed to none of the names that were asked for.
    pub(crate) fn confirm_late(&mut self, key: ClientKey, sequence: u32, refused: Option<Refused>) {
        let place = key.place;
        let Some(client) = self.clients.get_mut(place) else { return };
        if client.generation != key.generation || client.closing == Closing::Now {
            return;
        }
        let is_counted = client.executing.is_none();
        let busy = self.shared.settings.busy_words();
        let mut all = client.session.confirmations.iter_mut();
        let Some(confirmation) = all.find(|one| one.sequence == sequence) else { return };
        confirmation.is_due = true;
        if refused.is_some() {
            client.held -= confirmation.bytes.len();
            confirmation.bytes.clear();
            push_error(&mut confirmation.bytes, busy.as_bytes());
            client.held += confirmation.bytes.len();
        }
        let reply = confirmation.bytes.clone();
        if !is_counted {
            self.count_answered(place, &reply);
        } else if let (Some(owed), true) = (client.owed_at(sequence), refused.is_some()) {
            self.tally.failed(owed.row() as usize, &reply);
        }
        if let Some((kind, names)) = refused {
            self.take_back(place, kind, &names);
        }
        self.tell_what_is_due(place);
    }

    fn tell_what_is_due(&mut self, place: usize) {
        let client = &mut self.clients[place];
        while let Some(first) = client.session.confirmations.front()
            && first.is_due
            && client.is_front(first.sequence)
            && let Some(first) = client.session.confirmations.pop_front()
        {
            client.held -= first.bytes.len();
            client.out.extend_from_slice(&first.bytes);
            client.pop_front();
            client.settle(&self.lanes.received); // a PONG between two of them
        }
        let may_go_on = match client.gate {
            Gate::Subscribing => client.session.confirmations.is_empty(),
            Gate::Drain => client.owed.is_empty(),
            Gate::Coordinator => client.executing.is_some(), // else it is asked whether a user may
            _ => false,
        };
        if may_go_on {
            self.open_gate(place);
        }
        self.mark_dirty(place);
    }

    /// Ends subscriptions that nobody was told of, unless the client has ended them by now.
    fn take_back(&mut self, place: usize, kind: Kind, names: &[Vec<u8>]) {
        let known = self.clients[place].subscriptions.as_deref();
        let is_known = |name: &&Vec<u8>| known.is_some_and(|known| known.has(kind, name));
        let names: Vec<Name> =
            names.iter().filter(is_known).map(|name| Name::from(&name[..])).collect();
        self.count_out(kind, &names);
        for name in &names {
            self.leave(place, kind, name);
        }
        self.clients[place].forget_pushes(kind, &names);
        self.forget_subscriber(place);
    }
}
