//! Large arguments: a command is forwarded while the rest of it arrives, on a lane of its own.
//!
//! ```text
//! begin   *3 SET key $104857600 …   name, key and count are known, and all earlier commands of the
//!                                   client are answered: it gets a free lane for itself
//! pass    arriving bytes go on; while the lane takes no more, the client is not read
//! finish  the last two bytes wait for a pause or a key lock: without them the command does not run
//! ```
//! So an unfinished upload is not in flight: no lock waits for it, and nothing of it has run if the
//! client or the lane is lost. A command that is needed as a whole goes the other way (`forward`),
//! where it is kept until it is complete.

use crate::catalog::table::Found;
use crate::client::closing::Closing;
use crate::client::gate::Gate;
use crate::client::input::Input;
use crate::client::owed::Owed;
use crate::client::upload::Upload;
use crate::core::worker::Worker;
use crate::lane::instance;
use crate::lane::lane::Lane;
use crate::net::socket;
use crate::net::socket::Io;
use crate::resp::body_stream::{BodyStream, CHUNK};
use crate::resp::reply::push_error;
use crate::resp::request::Request;
use crate::tables::pause;
use crate::threads::shared::Shared;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes of an argument from which on it is forwarded in parts: from this size on that is cheaper
/// than keeping it, although the client's next command has to wait for the reply.
const AT_LEAST: usize = 64 * 1024;

/// A longer key is not kept in addition to its command.
const KEY_LIMIT: usize = 64 * 1024;

const CHANGED: &str =
    "TRYAGAIN the rights of the user changed while the command came; it was not run";

impl Worker {
    /// Begins to forward the command at the front of `bytes`, of which a large argument is
    /// arriving. Returns how many bytes are sent; `None` if it is not to be forwarded, or not now.
    #[cold]
    pub(crate) fn begin_upload(
        &mut self,
        place: usize,
        request: &Request,
        bytes: &[u8],
        shared: &Shared,
    ) -> Option<usize> {
        let (start, text, args) = request.announce(bytes)?;
        if text < AT_LEAST {
            return None;
        }
        let (row, key) = self.uploadable(place, request, bytes, args, shared)?;
        if self.must_drain(place) || !self.lanes.has_room_aside() {
            return None;
        }
        self.chunk.resize(CHUNK, 0);
        let instance = usize::from(shared.placement.instance(self.db(place), key));
        let set = self.clients[place].lane_set;
        let lane = self.free_lane(set, instance)?;
        self.lanes.lend(lane);
        let serial = self.lanes.get(lane)?.serial;
        let client = &mut self.clients[place];
        client.gate = Gate::Upload;
        client.last_command = row;
        let mut upload = Box::new(Upload {
            rest: BodyStream::new(args, text, start + text + 2),
            instance,
            lane,
            serial,
            set,
            row,
            key: key.to_vec(),
            length: 0,
        });
        self.send_on(&mut upload, &bytes[..start]);
        self.clients[place].upload = Some(upload);
        let used = start + self.pass(place, &bytes[start..]);
        self.mark_ready(place);
        Some(used)
    }

    /// The row and the key of a command that needs nothing but its instance.
    fn uploadable<'a>(
        &mut self,
        place: usize,
        request: &'a Request,
        bytes: &'a [u8],
        missing: usize,
        shared: &Shared,
    ) -> Option<(usize, &'a [u8])> {
        let client = &self.clients[place];
        // An instance that runs a script for too long refuses new lanes, but not with this error
        // text.
        let is_plain = shared.settings.busy().is_none()
            && client.multi.is_none()
            && client.executing.is_none()
            && !client.is_restricted
            && !client.is_resp2_subscriber
            && !client.is_tracking
            && !self.is_monitored();
        let args = request.args(bytes);
        if !is_plain || args.len() < 2 {
            return None;
        }
        let found = shared.table.find_again(&mut self.recent, args.get(0), Some(args.get(1)));
        let Found::Row(found) = found else {
            return None;
        };
        let row = shared.table.row(found);
        let has_key = row.streams && (1..args.len()).contains(&row.only_key);
        if !has_key || !row.special_words.is_empty() || !row.takes(args.len() + missing) {
            return None;
        }
        let key = args.get(row.only_key);
        let needs_coordinator = self.concerns_a_wait(place, row, args);
        (!needs_coordinator && key.len() <= KEY_LIMIT).then_some((found, key))
    }

    /// Reads a client that uploads, once.
    pub(crate) fn upload(&mut self, place: usize) {
        let Some(upload) = &self.clients[place].upload else {
            return;
        };
        let lane = upload.lane;
        if self.has_lane(upload) && self.lanes.get(lane).is_some_and(Lane::has_unsent) {
            self.wait_for_lane(place, lane);
            return;
        }
        if !self.clients[place].rx.is_empty() {
            let mut input = std::mem::take(&mut self.clients[place].rx);
            let used = self.pass(place, input.kept());
            input.take(used);
            self.clients[place].rx = input;
        }
        let client = &mut self.clients[place];
        if client.gate != Gate::Upload || client.closing != Closing::No || !client.readable {
            return;
        }
        let mut bytes = std::mem::take(&mut self.chunk);
        let kept = client.rx.len();
        bytes[..kept].copy_from_slice(client.rx.kept());
        client.rx = Input::default();
        let most = client.upload.as_ref().map_or(0, |upload| upload.rest.most()) - kept;
        let io = socket::read_into(&client.fd, &mut bytes[kept..kept + most]);
        self.note_read(place, io, most);
        let end = kept + if let Io::Moved(read) = io { read } else { 0 };
        let used = self.pass(place, &bytes[..end]);
        if used < end {
            self.clients[place].rx = Input::of(&bytes[used..end]);
        }
        self.chunk = bytes;
        self.account(place);
        let client = &self.clients[place];
        if io == Io::Gone {
            self.end_after_replies(place);
        } else if client.readable && client.gate == Gate::Upload && client.closing == Closing::No
            || self.keeps_reading(place)
        {
            self.mark_ready(place);
        }
    }

    /// Forwards what may be forwarded; returns how many bytes are done.
    fn pass(&mut self, place: usize, bytes: &[u8]) -> usize {
        let Some(mut upload) = self.clients[place].upload.take() else {
            return 0;
        };
        let limit = self.shared.settings.argument_limit();
        let used = match upload.rest.pass(bytes, limit) {
            Ok((length, false)) => length,
            Ok((length, true)) => match self.may_run(place, &upload) {
                Ok(false) => length,
                Ok(true) => {
                    self.send_on(&mut upload, &bytes[..length + 2]);
                    self.finish(place, &upload);
                    return length + 2;
                }
                Err(why) => {
                    self.refuse_upload(place, &upload, &why);
                    return length + 2;
                }
            },
            Err(error) => {
                self.end_after_protocol_error(place, &error);
                self.clients[place].upload = Some(upload); // it ends together with the client
                return bytes.len();
            }
        };
        self.send_on(&mut upload, &bytes[..used]);
        self.clients[place].upload = Some(upload);
        used
    }

    /// Bytes for a lane that is lost are dropped: the client gets its error at the end.
    fn send_on(&mut self, upload: &mut Upload, bytes: &[u8]) {
        upload.length += bytes.len();
        if self.has_lane(upload)
            && let Some(known) = self.lanes.get_mut(upload.lane)
        {
            known.pass_on(bytes);
            self.mark_lane_dirty(upload.lane);
        }
    }

    fn has_lane(&self, upload: &Upload) -> bool {
        let lane = self.lanes.get(upload.lane);
        lane.is_some_and(|lane| lane.serial == upload.serial && !lane.is_broken)
    }

    /// Whether a command that was sent except for its end may run; if not now, the gate is shut.
    ///
    /// # Errors
    /// The reason why it will not run.
    fn may_run(&mut self, place: usize, upload: &Upload) -> Result<bool, String> {
        let shared = Arc::clone(&self.shared);
        let row = shared.table.row(upload.row);
        if !self.has_lane(upload) {
            return Err(instance::lost(upload.instance, false));
        }
        if self.clients[place].lane_set != upload.set {
            return Err(CHANGED.into());
        }
        if shared.settings.pause.load(Relaxed) != pause::NONE && self.must_pause(place, row) {
            return Ok(false);
        }
        if self.must_wait_for_subscriptions(place, row) {
            return Ok(false);
        }
        if !self.is_key_locked(place, &upload.key, row.writes) {
            return Ok(true);
        }
        if let Some(instance) = self.doubt_of_key(self.db(place), &upload.key, row.writes) {
            return Err(instance::in_doubt(instance));
        }
        if shared.settings.busy().is_some() {
            return Err(shared.settings.busy_words());
        }
        self.wait_for_unlock(place);
        Ok(false)
    }

    /// The whole command is on its lane: from now on it is like any other.
    fn finish(&mut self, place: usize, upload: &Upload) {
        self.count_upload(place, upload);
        self.lanes.end_loan(upload.lane);
        let row = u32::try_from(upload.row).unwrap_or(u32::MAX);
        let sequence = self.clients[place].owe(Owed::Waiting(row));
        self.expect(place, upload.lane, sequence, upload.length);
        self.must_drain(place);
    }

    /// Answers the command with an error, and closes its lane, which has most of the command.
    fn refuse_upload(&mut self, place: usize, upload: &Upload, why: &str) {
        self.count_upload(place, upload);
        if self.has_lane(upload) {
            self.give_up(upload.lane);
        }
        let mut error = Vec::new();
        push_error(&mut error, why.as_bytes());
        self.tally.failed(upload.row, &error);
        self.answer(place, &error);
        self.open_gate(place);
    }

    fn count_upload(&mut self, place: usize, upload: &Upload) {
        self.counters.commands += 1;
        self.clients[place].session.commands += 1;
        self.tally.called(upload.row);
    }

    /// Ends an upload whose client is gone. The instance drops the incomplete command.
    pub(crate) fn end_upload(&mut self, upload: &Upload) {
        if self.lanes.get(upload.lane).is_some_and(|lane| lane.serial == upload.serial) {
            self.lanes.close(upload.lane);
        }
    }
}
