//! MULTI … EXEC: commands are checked and kept here, then sent as one block.
//!
//! ```text
//! all keys on one instance, nothing special  ─► lane: MULTI, commands, EXEC   (here)
//! ordinary commands, keys on several         ─► a commit  (commands/commit_join.rs)
//! anything else                              ─► the coordinator
//! ```

use crate::base::step::Step;
use crate::catalog::channels::Verb;
use crate::catalog::select::selected;
use crate::catalog::table::{Route, Row};
use crate::catalog::{key_specs, table};
use crate::client::owed::Owed;
use crate::client::queued::Queued;
use crate::client::transaction::{Block, Multi};
use crate::core::send::Checkout;
use crate::core::worker::Worker;
use crate::lane::instance;
use crate::resp::encode::{EXEC, MULTI, push_args};
use crate::resp::request::Args;
use crate::routing::owner::{Owner, has_special_word, owner};
use crate::routing::parts::SplitCommand;
use crate::threads::shared::Shared;

impl Worker {
    /// MULTI.
    pub(crate) fn multi(&mut self, place: usize) {
        let client = &mut self.clients[place];
        if client.multi.is_some() {
            return self.refuse(place, "ERR MULTI calls can not be nested");
        }
        client.multi = Some(Box::default());
        client.session.has_queue = true;
        self.answer(place, b"+OK\r\n");
    }

    /// Runs DISCARD; the coordinator is notified if keys are watched.
    pub(crate) fn discard(&mut self, place: usize, args: Args) -> Step {
        if self.clients[place].multi.is_none() {
            self.refuse(place, "ERR DISCARD without MULTI");
        } else if self.clients[place].is_watching {
            let taken = self.route_to_coordinator(place, args);
            if taken == Step::Done {
                self.clients[place].multi = None;
            }
            return taken;
        } else {
            self.clients[place].multi = None;
            self.answer(place, b"+OK\r\n");
        }
        Step::Done
    }

    /// Queues a command for EXEC.
    pub(crate) fn queue(&mut self, place: usize, row: &Row, args: Args, shared: &Shared) {
        self.clients[place].session.not_run += 1;
        if !row.multi_refusal.is_empty() {
            self.tally.rejected(self.clients[place].last_command);
            self.answer_error(place, &row.multi_refusal);
            return self.spoil_multi(place);
        }
        if row.route == Route::Refuse {
            self.tally.rejected(self.clients[place].last_command);
            self.answer_error(place, &row.refusal);
            return self.spoil_multi(place);
        }
        if self.clients[place].multi.as_ref().is_some_and(|multi| multi.is_spoilt) {
            return self.answer(place, b"+QUEUED\r\n");
        }
        let db = self.db(place);
        let is_plain = matches!(row.route, Route::Keys | Route::Split(_) | Route::Any)
            && !row.needs_coordinator
            && (row.special_words.is_empty() || !has_special_word(row, args));
        let owner = if is_plain { owner(row, args, db, &shared.placement) } else { Owner::Several };
        let last_row = self.clients[place].last_row();
        let Some(multi) = &mut self.clients[place].multi else {
            return;
        };
        match owner {
            Owner::Nobody => {}
            Owner::One(instance) => {
                multi.is_on_several |= *multi.instance.get_or_insert(instance) != instance;
                multi.homes.push(u16::try_from(instance).ok());
            }
            Owner::Several if is_plain && has_parts(row, args, db, shared) => {
                multi.is_on_several = true;
                multi.homes.push(None);
            }
            Owner::Several => multi.needs_coordinator = true,
        }
        if !multi.needs_coordinator {
            let keys =
                key_specs::all(&row.keys, args).map(|at| (db, args.get(at).to_vec(), row.writes));
            multi.keys.extend(keys);
        }
        if row.route == Route::Session(table::Verb::Select) {
            multi.db = selected(args, shared.databases).ok().or(multi.db);
        }
        multi.rows.push(last_row);
        multi.words += args.len();
        multi.may_replicate |= row.may_replicate;
        push_args(&mut multi.commands, args);
        multi.ends.push(multi.commands.len());
        self.answer(place, b"+QUEUED\r\n");
    }

    /// EXEC is refused, and so the transaction has ended.
    pub(crate) fn exec_refused(&mut self, place: usize, args: Args, why: &str) -> Step {
        let text = format!("EXECABORT Transaction discarded because of: {why}");
        if self.clients[place].is_watching {
            return self.end_watch_first(place, args, text.as_bytes());
        }
        self.tally.rejected(self.clients[place].last_command);
        self.clients[place].multi = None;
        self.refuse(place, &text);
        Step::Done
    }

    /// The coordinator ends the watch before the client gets the reason why EXEC was refused, with
    /// MULTI or without it.
    pub(crate) fn end_watch_first(&mut self, place: usize, args: Args, text: &[u8]) -> Step {
        self.clients[place].multi.get_or_insert_with(Box::default);
        self.spoil_multi(place);
        let taken = self.exec(place, args);
        if taken == Step::Done {
            self.clients[place].session.exec_refusal = Some(text.into());
        }
        taken
    }

    /// EXEC.
    pub(crate) fn exec(&mut self, place: usize, args: Args) -> Step {
        let Some(multi) = self.clients[place].multi.take() else {
            self.refuse(place, "ERR EXEC without MULTI");
            return Step::Done;
        };
        let of_key =
            |(db, key, writes): &(u32, Vec<u8>, bool)| self.doubt_of_key(*db, key, *writes);
        // If keys are watched, the coordinator reports it, and ends the watch.
        let is_judged_here = !multi.is_spoilt && !self.clients[place].is_watching;
        let doubt = is_judged_here.then(|| multi.keys.iter().find_map(of_key)).flatten();
        if let Some(instance) = doubt {
            self.refuse(place, &instance::in_doubt(instance));
            return Step::Done;
        }
        if self.publishes(&multi) && self.must_let_others_read(place) {
            self.clients[place].multi = Some(multi);
            return Step::Blocked;
        }
        // What a restricted user may still read is known only later.
        let client = &self.clients[place];
        if client.is_tracking && !client.is_restricted && !multi.is_spoilt {
            let table = self.shared.clone();
            self.remember_queued(place, &multi.commands, &table.table);
        }
        // MULTI on a restricted user's lane could be refused, and its commands would run without
        // it.
        let needs_coordinator = multi.needs_coordinator
            || self.clients[place].session.tracking.as_ref().is_some_and(|mode| mode.no_loop)
            || self.clients[place].is_restricted
            || self.shared.blocking_keys.any(&multi.keys);
        let client = &self.clients[place];
        let is_busy = self.shared.settings.busy().is_some();
        let is_odd = client.is_watching || is_busy || (needs_coordinator && !multi.is_spoilt);
        if is_odd || (multi.is_on_several && !multi.is_spoilt) {
            if self.must_drain(place) {
                self.clients[place].multi = Some(multi);
                return Step::Blocked;
            }
            let is_plain = !is_odd && multi.homes.len() == multi.rows.len();
            if is_plain && self.transaction_must_wait(place, &multi.keys) {
                self.clients[place].multi = Some(multi);
                return Step::Blocked;
            }
            let count = multi.rows.len();
            let client = &mut self.clients[place];
            (client.session.block, client.session.exec_row) = (count, client.last_command);
            let joined = if is_plain { self.join_with(place, multi) } else { Err(multi) };
            let Err(multi) = joined else {
                self.clients[place].session.has_run(count);
                return Step::Done;
            };
            if !multi.is_spoilt && self.is_monitored() {
                self.show_queued_later(place, &multi.commands);
            }
            let Multi { commands, rows, is_spoilt, .. } = *multi;
            let queued = (!is_spoilt).then_some(Queued { commands, count: rows.len() });
            self.clients[place].session.queued_rows = rows;
            self.send_to_coordinator(place, args, queued);
            return Step::Done;
        }
        if multi.is_spoilt {
            self.refuse(place, "EXECABORT Transaction discarded because of previous errors.");
            return Step::Done;
        }
        if multi.rows.is_empty() {
            self.answer(place, b"*0\r\n");
            return Step::Done;
        }
        self.exec_on_one(place, multi)
    }

    /// Whether one of its commands is PUBLISH or SPUBLISH.
    fn publishes(&self, multi: &Multi) -> bool {
        let route = |row: &u32| self.shared.table.row(*row as usize).route;
        let is_it = |row: &u32| matches!(route(row), Route::Pubsub(Verb::Publish(_)));
        multi.needs_coordinator && !multi.is_spoilt && multi.rows.iter().any(is_it)
    }

    fn exec_on_one(&mut self, place: usize, multi: Box<Multi>) -> Step {
        if self.transaction_must_wait(place, &multi.keys) {
            self.clients[place].multi = Some(multi);
            return Step::Blocked;
        }
        let instance = multi.instance.unwrap_or_else(|| self.any_instance(place));
        if multi.may_replicate && self.must_wait_for_writes(place, Some(instance)) {
            self.clients[place].multi = Some(multi);
            return Step::Blocked;
        }
        let lane = match self.check_out(place, instance) {
            Checkout::Lane(lane) => lane,
            Checkout::Full(lane) => {
                self.clients[place].multi = Some(multi);
                return self.wait_for_lane(place, lane);
            }
            Checkout::Down => return self.instance_down(place, instance),
        };
        if self.is_monitored() {
            self.show_queued(place, &multi.commands);
        }
        // MULTI and every command have a reply of their own, which is only QUEUED.
        let exec = self.clients[place].last_row();
        let count = multi.rows.len();
        self.clients[place].session.has_run(count);
        let block = Block { before: count + 1, rows: multi.rows, exec, refusal: Vec::new() };
        self.append_block(place, lane, Owed::Block(Box::new(block)), &multi.commands, count);
        Step::Done
    }

    /// Appends `count` commands as one block to a lane: each has a reply, and so have MULTI and
    /// EXEC.
    pub(crate) fn append_block(
        &mut self,
        place: usize,
        lane: usize,
        owed: Owed,
        commands: &[u8],
        count: usize,
    ) {
        let sequence = self.clients[place].owe(owed);
        self.append_part(place, lane, sequence, |out| {
            out.reserve(MULTI.len() + commands.len() + EXEC.len());
            out.extend_from_slice(MULTI);
            out.extend_from_slice(commands);
            out.extend_from_slice(EXEC);
        });
        for _ in 0..=count {
            self.append_part(place, lane, sequence, |_| {});
        }
    }
}

/// Whether a command whose keys live on several instances can be done in parts.
fn has_parts(row: &Row, args: Args, db: u32, shared: &Shared) -> bool {
    row.parts.is_some()
        && SplitCommand::new(row, args, db, &shared.placement, &mut Vec::new()).is_some()
}
