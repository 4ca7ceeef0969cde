//! From a client's bytes to the lanes: cut, look up, find the instance, append.

use crate::client::{Closing, Gate, Owed};
use crate::command::{Found, Route, Row};
use crate::instance::InstanceState;
use crate::merge::{Merge, Merging};
use crate::net::{self, Io};
use crate::number::push_u64;
use crate::reply::push_error;
use crate::request::{Args, Cut, REQUEST_LIMIT, push_array, push_bulk, push_command};
use crate::scan;
use crate::shared::{Shared, ToCoordinator};
use crate::worker::{CLIENT_READ, Worker, lane_data, seconds};
use rustix::event::epoll;
use std::sync::Arc;

/// A partial command longer than this keeps its place between reads; a shorter one is cut anew.
const KEEP_PLACE: usize = 1024;
/// Bytes by which a long command is read at most.
const READ_MOST: usize = 4 * 1024 * 1024;

/// What became of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is on its way, or answered.
    Yes,
    /// It must wait; the client's gate says for what.
    NotYet,
}

/// Where the keys of a command are.
enum Owner {
    /// It has none, as far as its syntax tells.
    Nobody,
    One(usize),
    Several,
}

/// A way to an instance.
pub(crate) enum Reach {
    Lane(usize),
    Full(usize),
    Down,
}

impl Worker {
    /// Reads every ready client once, and forwards its commands.
    pub(crate) fn read_clients(&mut self) {
        for place in std::mem::take(&mut self.ready) {
            let Some(client) = self.clients.get_mut(place) else {
                continue;
            };
            client.is_ready = false;
            match client.closing {
                Closing::Lingering(_) => self.discard_input(place),
                Closing::No if client.gate == Gate::Open => self.serve(place),
                _ => {}
            }
        }
    }

    /// First what is already here, then what the socket has.
    fn serve(&mut self, place: usize) {
        if !self.clients[place].rx.is_empty() && self.clients[place].request.is_none() {
            self.forward_kept(place);
        }
        let client = &mut self.clients[place];
        if !client.readable || client.gate != Gate::Open || client.closing != Closing::No {
            return;
        }
        let io = if client.rx.is_empty() {
            let mut bytes = std::mem::take(&mut self.scratch);
            bytes.clear();
            let io = net::read(&client.fd, &mut bytes, CLIENT_READ);
            self.note_read(place, io, CLIENT_READ);
            let used = self.forward(place, &bytes);
            if used < bytes.len() {
                self.clients[place].rx = bytes[used..].to_vec();
            }
            self.scratch = bytes;
            io
        } else {
            let chunk = client.rx.len().clamp(CLIENT_READ, READ_MOST);
            let io = net::read(&client.fd, &mut client.rx, chunk);
            self.note_read(place, io, chunk);
            self.forward_kept(place);
            io
        };
        self.account(place);
        let client = &self.clients[place];
        if io == Io::Gone {
            self.end_after_replies(place);
        } else if client.rx.len() > REQUEST_LIMIT {
            self.end_client(place);
        } else if client.readable && client.gate == Gate::Open && client.closing == Closing::No {
            self.mark_ready(place);
        }
    }

    fn note_read(&mut self, place: usize, io: Io, chunk: usize) {
        let client = &mut self.clients[place];
        let read = if let Io::Moved(read) = io { read } else { 0 };
        // After a short read the socket is empty: the next byte raises a new edge. After a
        // hang-up there will be none, so read on to the end.
        client.readable = read >= chunk || (client.hung_up && io != Io::Later);
        client.session.last_active = seconds(self.now);
        client.session.input_bytes += read as u64;
        self.counters.net_input_bytes += read as u64;
    }

    fn forward_kept(&mut self, place: usize) {
        let mut bytes = std::mem::take(&mut self.clients[place].rx);
        let used = self.forward(place, &bytes);
        if used < bytes.len() {
            bytes.drain(..used);
            self.clients[place].rx = bytes;
        }
    }

    /// Forwards the commands at the front of `bytes`; how many bytes they had.
    fn forward(&mut self, place: usize, bytes: &[u8]) -> usize {
        let mut request = match self.clients[place].request.take() {
            Some(request) => *request,
            None => std::mem::take(&mut self.request),
        };
        let mut used = 0;
        loop {
            let client = &mut self.clients[place];
            if client.gate != Gate::Open || client.closing != Closing::No {
                break;
            }
            if client.is_behind() {
                client.gate = Gate::Output;
                break;
            }
            match request.cut(&bytes[used..], client.session.authenticated) {
                Ok(Cut::Complete(length)) => {
                    let args = request.args(&bytes[used..used + length]);
                    if self.take(place, args) == Taken::NotYet {
                        break;
                    }
                    request.reset();
                    used += length;
                }
                Ok(Cut::Incomplete) => {
                    if request.is_partial() && bytes.len() - used > KEEP_PLACE {
                        client.request = Some(Box::new(std::mem::take(&mut request)));
                    }
                    break;
                }
                Err(error) => {
                    self.counters.protocol_errors += 1;
                    self.refuse(place, &format!("ERR Protocol error: {error}"));
                    self.end_after_replies(place);
                    used = bytes.len();
                    break;
                }
            }
        }
        request.reset();
        self.request = request;
        used
    }

    /// Takes one command.
    fn take(&mut self, place: usize, args: Args) -> Taken {
        if args.is_empty() {
            return Taken::Yes;
        }
        let shared = Arc::clone(&self.shared);
        let sub = (args.len() > 1).then(|| args.get(1));
        let found = match shared.table.find(args.get(0), sub) {
            Found::Row(found) => found,
            Found::UnknownCommand => return self.unknown_command(place, args),
            Found::UnknownSubcommand(parent) => {
                self.count_command(place, parent);
                self.refuse(place, &unknown_subcommand(&shared.table.row(parent).name, args));
                return Taken::Yes;
            }
        };
        let row = shared.table.row(found);
        let taken = if !row.takes(args.len()) {
            let name = String::from_utf8_lossy(&row.name);
            self.refuse(place, &format!("ERR wrong number of arguments for '{name}' command"));
            Taken::Yes
        } else if !self.clients[place].session.authenticated && !row.no_auth {
            self.refuse(place, "NOAUTH Authentication required.");
            Taken::Yes
        } else {
            self.route(place, row, args, &shared)
        };
        if taken == Taken::Yes {
            self.count_command(place, found);
        }
        taken
    }

    fn count_command(&mut self, place: usize, row: usize) {
        self.counters.commands += 1;
        let session = &mut self.clients[place].session;
        session.commands += 1;
        session.last_command = row;
    }

    fn route(&mut self, place: usize, row: &Row, args: Args, shared: &Arc<Shared>) -> Taken {
        match row.route {
            Route::Keys => self.to_owner(place, row, args, shared),
            Route::Split(merge) => self.to_owners(place, row, merge, args, shared),
            Route::All(merge) => self.to_all(place, merge, args),
            Route::Any => self.to_any(place, args),
            Route::Scan => self.scan(place, args),
            Route::Session(verb) => self.session(place, verb, args),
            Route::Coordinator => self.to_coordinator(place, args),
            Route::Refuse => {
                self.answer_error(place, &row.refusal);
                Taken::Yes
            }
        }
    }

    /// One instance has all keys, or the command is refused.
    fn to_owner(&mut self, place: usize, row: &Row, args: Args, shared: &Shared) -> Taken {
        if !row.refused_words.is_empty() && has_refused_word(row, args) {
            self.answer_error(place, &row.refusal);
            return Taken::Yes;
        }
        let owner = if row.only_key > 0 && row.only_key < args.len() {
            Owner::One(usize::from(shared.slot_map.instance(args.get(row.only_key))))
        } else {
            owner(row, args, shared)
        };
        match owner {
            Owner::One(instance) => self.to_instance(place, instance, args),
            // No keys where the server expects some: any instance will say what is wrong.
            Owner::Nobody => self.to_any(place, args),
            Owner::Several => {
                let name = String::from_utf8_lossy(&row.name).to_ascii_uppercase();
                self.refuse(
                    place,
                    &format!(
                        "ERR threadis: {name} with keys of several instances is not supported \
                         yet; give the keys a common {{hash tag}}"
                    ),
                );
                Taken::Yes
            }
        }
    }

    /// Sends a command as it is to one instance.
    fn to_instance(&mut self, place: usize, instance: usize, args: Args) -> Taken {
        match self.reach(place, instance) {
            Reach::Lane(lane) => {
                self.append(place, lane, Owed::Waiting, |out| push_args(out, args));
                Taken::Yes
            }
            Reach::Full(lane) => self.wait_for_lane(place, lane),
            Reach::Down => self.instance_down(place, instance),
        }
    }

    pub(crate) fn to_any(&mut self, place: usize, args: Args) -> Taken {
        let count = self.instances.len();
        // Spread by client, and always the same for one client while all is well.
        let first = usize::try_from(self.clients[place].session.id).unwrap_or(0) % count;
        let is_ready = |index: &usize| matches!(self.instances[*index], InstanceState::Ready(_));
        let instance = (0..count).map(|step| (first + step) % count).find(is_ready);
        self.to_instance(place, instance.unwrap_or(first), args)
    }

    /// To every instance. Everything before it is answered first: it touches the whole keyspace.
    fn to_all(&mut self, place: usize, merge: Merge, args: Args) -> Taken {
        if self.must_drain(place) {
            return Taken::NotYet;
        }
        let everyone: Vec<usize> = (0..self.instances.len()).collect();
        let lanes = match self.reach_all(place, &everyone) {
            Ok(lanes) => lanes,
            Err(taken) => return taken,
        };
        let merging = Merging::new(merge, lanes.len(), lanes.len(), Vec::new());
        let sequence = self.clients[place].owe(Owed::Merging(Box::new(merging)));
        for lane in lanes {
            self.append_part(place, lane, sequence, |out| push_args(out, args));
        }
        Taken::Yes
    }

    /// One command to each instance that has some of the keys.
    fn to_owners(
        &mut self,
        place: usize,
        row: &Row,
        merge: Merge,
        args: Args,
        shared: &Shared,
    ) -> Taken {
        let Some(span) = row.keys.first().and_then(|spec| spec.span(args)) else {
            return self.to_any(place, args);
        };
        let end = span.last + span.step;
        if end > args.len() {
            return self.to_any(place, args); // a value is missing; the server says so
        }
        let mut owners = std::mem::take(&mut self.owners);
        owners.clear();
        owners.extend(span.indices().map(|index| shared.slot_map.instance(args.get(index))));
        let taken = if owners.iter().all(|&owner| owner == owners[0]) {
            self.to_instance(place, usize::from(owners[0]), args)
        } else if (end..args.len()).any(|index| is_word(&row.refused_words, args.get(index))) {
            self.answer_error(place, &row.refusal);
            Taken::Yes
        } else {
            self.split(place, row, merge, args, span, &owners)
        };
        self.owners = owners;
        taken
    }

    fn split(
        &mut self,
        place: usize,
        row: &Row,
        merge: Merge,
        args: Args,
        span: crate::keys::Span,
        owners: &[u16],
    ) -> Taken {
        let mut counts = vec![0usize; self.instances.len()];
        for &owner in owners {
            counts[usize::from(owner)] += 1;
        }
        let involved: Vec<usize> = (0..counts.len()).filter(|&index| counts[index] > 0).collect();
        let lanes = match self.reach_all(place, &involved) {
            Ok(lanes) => lanes,
            Err(taken) => return taken,
        };
        let order = if merge == Merge::Keyed { owners.to_vec() } else { Vec::new() };
        let merging = Merging::new(merge, counts.len(), lanes.len(), order);
        let sequence = self.clients[place].owe(Owed::Merging(Box::new(merging)));

        let mut lane_of = vec![usize::MAX; counts.len()];
        let mut begins = vec![0usize; counts.len()];
        let suffix = span.last + span.step..args.len();
        let number_at = row.keys.first().and_then(|spec| spec.number_at(args));
        for (&instance, &lane) in involved.iter().zip(&lanes) {
            lane_of[instance] = lane;
            let Some(lane) = self.lanes.get_mut(lane) else { continue };
            begins[instance] = lane.out.len();
            push_array(&mut lane.out, span.first + counts[instance] * span.step + suffix.len());
            for index in 0..span.first {
                if Some(index) == number_at {
                    let mut digits = Vec::new();
                    push_u64(&mut digits, counts[instance] as u64);
                    push_bulk(&mut lane.out, &digits);
                } else {
                    push_bulk(&mut lane.out, args.get(index));
                }
            }
        }
        for (key, &owner) in span.indices().zip(owners) {
            let Some(lane) = self.lanes.get_mut(lane_of[usize::from(owner)]) else { continue };
            for index in key..key + span.step {
                push_bulk(&mut lane.out, args.get(index));
            }
        }
        for (&instance, &lane) in involved.iter().zip(&lanes) {
            let begin = begins[instance];
            let Some(known) = self.lanes.get_mut(lane) else { continue };
            for index in suffix.clone() {
                push_bulk(&mut known.out, args.get(index));
            }
            let length = known.out.len() - begin;
            self.expect(place, lane, sequence, length);
        }
        Taken::Yes
    }

    fn scan(&mut self, place: usize, args: Args) -> Taken {
        let count = self.instances.len();
        let Some((instance, cursor)) = scan::decode(args.get(1), count) else {
            self.refuse(place, "ERR invalid cursor");
            return Taken::Yes;
        };
        match self.reach(place, instance) {
            Reach::Lane(lane) => {
                let owed = Owed::Scanning(u16::try_from(instance).unwrap_or(0));
                self.append(place, lane, owed, |out| {
                    let mut digits = Vec::new();
                    push_u64(&mut digits, cursor);
                    push_array(out, args.len());
                    for (index, arg) in args.iter().enumerate() {
                        push_bulk(out, if index == 1 { &digits } else { arg });
                    }
                });
                Taken::Yes
            }
            Reach::Full(lane) => self.wait_for_lane(place, lane),
            Reach::Down => self.instance_down(place, instance),
        }
    }

    fn to_coordinator(&mut self, place: usize, args: Args) -> Taken {
        if self.must_drain(place) {
            return Taken::NotYet;
        }
        let letter = ToCoordinator::Command {
            key: self.key(place),
            info: Box::new(self.describe(place)),
            args: args.iter().map(<[u8]>::to_vec).collect(),
        };
        let client = &mut self.clients[place];
        client.owe(Owed::Waiting);
        client.gate = Gate::Coordinator;
        self.shared.coordinator.post(letter);
        Taken::Yes
    }

    /// True, and the gate is shut, while earlier commands of this client are not answered.
    pub(crate) fn must_drain(&mut self, place: usize) -> bool {
        let client = &mut self.clients[place];
        if client.owed.is_empty() {
            return false;
        }
        client.gate = Gate::Drain;
        true
    }

    /// The lanes to several instances, or what to do because one cannot be had. Nothing is sent
    /// unless all can be.
    fn reach_all(&mut self, place: usize, instances: &[usize]) -> Result<Vec<usize>, Taken> {
        let mut lanes = Vec::with_capacity(instances.len());
        for &instance in instances {
            match self.reach(place, instance) {
                Reach::Lane(lane) => lanes.push(lane),
                Reach::Full(lane) => return Err(self.wait_for_lane(place, lane)),
                Reach::Down => return Err(self.instance_down(place, instance)),
            }
        }
        Ok(lanes)
    }

    /// The lane for a client's commands to an instance; opened if there is none.
    fn reach(&mut self, place: usize, instance: usize) -> Reach {
        let set = self.clients[place].lane_set;
        if let Some(lane) = self.lanes.open_lane(set, instance) {
            let is_full = self.lanes.get(lane).is_some_and(crate::lane::Lane::is_full);
            return if is_full { Reach::Full(lane) } else { Reach::Lane(lane) };
        }
        let InstanceState::Ready(socket) = &self.instances[instance] else {
            return Reach::Down;
        };
        let password = &self.shared.instance_password;
        let Ok(lane) = self.lanes.open(set, instance, socket, password, seconds(self.now)) else {
            return Reach::Down;
        };
        let watched = self.lanes.get(lane).is_some_and(|known| {
            epoll::add(&self.epoll, &known.fd, lane_data(lane), net::READ).is_ok()
        });
        if watched {
            Reach::Lane(lane)
        } else {
            self.lanes.close(lane);
            Reach::Down
        }
    }

    fn wait_for_lane(&mut self, place: usize, lane: usize) -> Taken {
        let client = &mut self.clients[place];
        client.gate = Gate::Lane;
        let waiter = (u32::try_from(place).expect("descriptors fit"), client.generation);
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.waiting.push(waiter);
        }
        Taken::NotYet
    }

    fn instance_down(&mut self, place: usize, instance: usize) -> Taken {
        let refusal = self.instances[instance].refusal(instance);
        self.refuse(place, &refusal);
        Taken::Yes
    }

    /// Appends a command of a client to a lane, and its reply to what the client is owed.
    fn append(&mut self, place: usize, lane: usize, owed: Owed, write: impl FnOnce(&mut Vec<u8>)) {
        let sequence = self.clients[place].owe(owed);
        self.append_part(place, lane, sequence, write);
    }

    fn append_part(
        &mut self,
        place: usize,
        lane: usize,
        sequence: u32,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let Some(known) = self.lanes.get_mut(lane) else {
            return;
        };
        let begin = known.out.len();
        write(&mut known.out);
        let length = known.out.len() - begin;
        self.expect(place, lane, sequence, length);
    }

    fn expect(&mut self, place: usize, lane: usize, sequence: u32, length: usize) {
        let generation = self.clients[place].generation;
        let now = seconds(self.now);
        if let Some(known) = self.lanes.get_mut(lane) {
            known.expect(place, generation, sequence, length, now);
            self.counters.lane_commands += 1;
            self.mark_lane_dirty(lane);
        }
    }

    fn unknown_command(&mut self, place: usize, args: Args) -> Taken {
        let name = args.get(0);
        self.counters.commands += 1;
        self.clients[place].session.commands += 1;
        // A browser was tricked into talking to us: Redis hangs up here, and so do we, but not
        // before earlier commands are answered.
        if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
            self.counters.protocol_errors += 1;
            self.end_after_replies(place);
            return Taken::Yes;
        }
        self.answer_error(place, &unknown_command(args));
        Taken::Yes
    }

    /// Answers `-<message>`.
    pub(crate) fn refuse(&mut self, place: usize, message: &str) {
        self.answer_error(place, message.as_bytes());
    }

    fn answer_error(&mut self, place: usize, message: &[u8]) {
        let mut reply = Vec::with_capacity(message.len() + 3);
        push_error(&mut reply, message);
        self.answer(place, &reply);
    }

    /// Answers a command at once, behind what the client is owed before it.
    pub(crate) fn answer(&mut self, place: usize, reply: &[u8]) {
        self.clients[place].answer(reply);
        self.mark_dirty(place);
    }
}

/// A command as an instance may see it: our own framing if it came inline, else as it came,
/// which is canonical because the parser takes nothing else.
fn push_args(out: &mut Vec<u8>, args: Args) {
    if args.is_inline() {
        push_command(out, args.iter());
    } else {
        out.extend_from_slice(args.raw);
    }
}

fn owner(row: &Row, args: Args, shared: &Shared) -> Owner {
    let mut first = None;
    for span in row.keys.iter().filter_map(|spec| spec.span(args)) {
        for index in span.indices() {
            let instance = usize::from(shared.slot_map.instance(args.get(index)));
            if *first.get_or_insert(instance) != instance {
                return Owner::Several;
            }
        }
    }
    first.map_or(Owner::Nobody, Owner::One)
}

fn has_refused_word(row: &Row, args: Args) -> bool {
    args.iter()
        .skip(1)
        .take_while(|arg| {
            row.words_until.is_empty() || !arg.eq_ignore_ascii_case(&row.words_until)
        })
        .any(|arg| is_word(&row.refused_words, arg))
}

fn is_word(words: &[Vec<u8>], arg: &[u8]) -> bool {
    words.iter().any(|word| word.eq_ignore_ascii_case(arg))
}

/// Redis's text: at most 128 bytes of the name, and about 128 of arguments.
fn unknown_command(args: Args) -> Vec<u8> {
    let mut message = b"ERR unknown command '".to_vec();
    message.extend_from_slice(printable(args.get(0), 128));
    message.extend_from_slice(b"', with args beginning with: ");
    let mut shown = 0;
    for arg in args.iter().skip(1) {
        if shown >= 128 {
            break;
        }
        let arg = printable(arg, 128 - shown);
        message.push(b'\'');
        message.extend_from_slice(arg);
        message.extend_from_slice(b"' ");
        shown += arg.len() + 3;
    }
    message
}

fn unknown_subcommand(parent: &[u8], args: Args) -> String {
    let sub = String::from_utf8_lossy(printable(args.get(1), 128));
    let parent = String::from_utf8_lossy(parent).to_ascii_uppercase();
    format!("ERR unknown subcommand '{sub}'. Try {parent} HELP.")
}

/// What C's `%.*s` would print.
fn printable(text: &[u8], most: usize) -> &[u8] {
    let text = &text[..text.len().min(most)];
    memchr::memchr(0, text).map_or(text, |nul| &text[..nul])
}
