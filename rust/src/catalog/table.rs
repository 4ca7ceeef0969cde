//! The command table: name → row. Python derives every row from the server.

use crate::catalog::channels;
use crate::catalog::index::{Index, Recent};
use crate::catalog::key_specs::KeySpec;
use crate::catalog::merge_kind::Merge;
use crate::catalog::traits::Traits;
use crate::resp::request::Args;

/// How a command reaches the instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// To the instance of its keys. For keys on several instances see `Row::parts`.
    Keys,
    /// One command to each instance that has some of its keys; the replies are merged.
    Split(Merge),
    /// To every instance; the replies are merged.
    All(Merge),
    /// To any one instance, because the reply is the same everywhere.
    Any,
    /// SCAN: to one instance after the other; the cursor tells which.
    Scan,
    /// Answered by the worker, which owns the session.
    Session(Verb),
    /// Subscriptions and messages, which the worker handles.
    Pubsub(channels::Verb),
    /// EVAL, EVALSHA: run by the worker if the script is known, otherwise by the coordinator.
    Script,
    /// Run by the coordinator, in Python.
    Coordinator,
    /// Not supported; the error is in `Row::refusal`.
    Refuse,
}

/// The commands that a worker answers itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the command of that name")]
pub enum Verb {
    Ping,
    Echo,
    Quit,
    Reset,
    Hello,
    Auth,
    Select,
    ClientId,
    ClientGetname,
    ClientSetname,
    ClientSetinfo,
    ClientNoEvict,
    ClientNoTouch,
    ClientReply,
    ClientCapa,
    Multi,
    Exec,
    Discard,
    Watch,
}

/// One row of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// In lower case; a subcommand as `parent|name`.
    pub name: Vec<u8>,
    /// The number of arguments, including the name; negative: at least that many.
    pub arity: i64,
    /// It may run before authentication.
    pub no_auth: bool,
    /// It writes, or is replicated, so it waits while CLIENT PAUSE holds writes back.
    pub may_replicate: bool,
    /// It may be refused if memory is full.
    pub may_need_memory: bool,
    /// It may change keys.
    pub writes: bool,
    /// It may serve a client that is blocked on its keys.
    pub feeds: bool,
    /// A large argument after its key is forwarded while it is still arriving.
    pub streams: bool,
    /// The error between MULTI and EXEC; empty if it is allowed there.
    pub multi_refusal: Vec<u8>,
    /// The error unless an option allows the command; empty if it is always allowed.
    pub protection: Vec<u8>,
    /// Clients of this machine may use it nevertheless.
    pub is_open_to_local: bool,
    /// Between MULTI and EXEC it needs the coordinator, even with keys of one instance.
    pub needs_coordinator: bool,
    /// It runs at once between MULTI and EXEC.
    pub ends_multi: bool,
    /// It may block on its keys.
    pub blocks: bool,
    /// It takes from the first of its keys that has something, and from no other.
    pub takes_first: bool,
    /// SLOWLOG shows it.
    pub is_logged: bool,
    /// MONITOR shows it.
    pub is_shown: bool,
    /// It reads or writes keys, so a client in MONITOR may not use it.
    pub touches_keys: bool,
    /// How it is routed.
    pub route: Route,
    /// How the replies of its parts are merged, if it is split when its keys are on several
    /// instances.
    pub parts: Option<Merge>,
    /// Its key specifications.
    pub keys: Vec<KeySpec>,
    /// The argument of its only key, if the specification is that simple (as most are); otherwise
    /// 0.
    pub only_key: usize,
    /// Options with which the coordinator runs the command.
    pub special_words: Vec<Vec<u8>>,
    /// Options end at this word (XREAD's STREAMS), after which anything may be a key.
    pub words_until: Vec<u8>,
    /// What is special about it.
    pub traits: Traits,
    /// The error for `Route::Refuse`.
    pub refusal: Vec<u8>,
    /// The names of its subcommands; empty for most commands.
    subcommands: Index,
    /// Its one key alone determines where it goes, whatever its other arguments are.
    is_ordinary: bool,
}

impl Row {
    /// True for EXEC.
    #[must_use]
    pub fn is_exec(&self) -> bool {
        self.route == Route::Session(Verb::Exec)
    }

    /// True for a command after which there is no transaction any more, or no client.
    #[must_use]
    pub fn ends_transaction(&self) -> bool {
        let Route::Session(verb) = self.route else { return false };
        matches!(verb, Verb::Exec | Verb::Discard | Verb::Quit | Verb::Reset)
    }

    /// A row without subcommands; `Table::new` links those.
    #[must_use]
    pub fn new(name: Vec<u8>, arity: i64, route: Route, keys: Vec<KeySpec>) -> Self {
        use crate::catalog::key_specs::{Begin, Find};
        let only_key = match keys.as_slice() {
            [KeySpec { begin: Begin::Index(at), find: Find::Range { last: 0, .. } }] => *at,
            _ => 0,
        };
        Self {
            name,
            arity,
            no_auth: false,
            may_replicate: false,
            may_need_memory: false,
            writes: true,
            multi_refusal: Vec::new(),
            protection: Vec::new(),
            is_open_to_local: false,
            feeds: false,
            streams: false,
            needs_coordinator: false,
            ends_multi: false,
            blocks: false,
            takes_first: false,
            is_logged: true,
            is_shown: true,
            touches_keys: true,
            route,
            parts: None,
            keys,
            only_key,
            special_words: Vec::new(),
            words_until: Vec::new(),
            traits: Traits::default(),
            refusal: Vec::new(),
            subcommands: Index::default(),
            is_ordinary: false,
        }
    }

    /// True if a client in RESP2 with subscriptions may use it.
    #[must_use]
    pub fn is_for_subscribers(&self) -> bool {
        matches!(
            self.route,
            Route::Session(Verb::Ping | Verb::Quit | Verb::Reset)
                | Route::Pubsub(channels::Verb::Subscribe(_) | channels::Verb::Unsubscribe(_))
        )
    }

    /// True if it is taken before a client's subscriptions are confirmed.
    #[must_use]
    pub fn may_follow_subscribe(&self) -> bool {
        let is_last = matches!(self.route, Route::Session(Verb::Quit | Verb::Reset));
        self.is_for_subscribers() && !is_last
    }

    /// True if this number of arguments, including the name, is allowed.
    #[must_use]
    pub fn takes(&self, count: usize) -> bool {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        if self.arity < 0 { count >= -self.arity } else { count == self.arity }
    }
}

/// The result of a look-up.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Found {
    /// A row, by its place in the table.
    Row(usize),
    /// No such command.
    UnknownCommand,
    /// A container command without that subcommand; the container's place.
    UnknownSubcommand(usize),
}

/// A row named `parent|*` is used for every subcommand without a row of its own.
const ANY_OTHER: &[u8] = b"*";

/// All rows, indexed by name.
#[derive(Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
    commands: Index,
}

impl Table {
    /// Links rows by their names; a `parent|name` row needs its parent's.
    ///
    /// # Errors
    /// A message that names the row that cannot be linked.
    pub fn new(rows: Vec<Row>) -> Result<Self, String> {
        let mut table = Self { commands: Index::default(), rows };
        for place in 0..table.rows.len() {
            let name = table.rows[place].name.clone();
            if !name.contains(&b'|') {
                table.commands.insert(&name, place);
            }
        }
        for place in 0..table.rows.len() {
            let name = table.rows[place].name.clone();
            if let Some(bar) = name.iter().position(|&byte| byte == b'|') {
                let parent = table
                    .commands
                    .find(&name[..bar])
                    .ok_or_else(|| format!("no row for {}", String::from_utf8_lossy(&name)))?;
                table.rows[parent].subcommands.insert(&name[bar + 1..], place);
            }
        }
        for row in &mut table.rows {
            row.is_ordinary = row.route == Route::Keys
                && row.only_key == 1
                && row.special_words.is_empty()
                && row.subcommands.is_empty()
                && !row.no_auth
                && !row.blocks;
        }
        Ok(table)
    }

    /// True if there is a command with this route.
    #[must_use]
    pub fn has(&self, route: Route) -> bool {
        self.rows.iter().any(|row| row.route == route)
    }

    /// Looks up a command; `sub` is its first argument, if any.
    #[must_use]
    pub fn find(&self, name: &[u8], sub: Option<&[u8]>) -> Found {
        let Some(place) = self.commands.find(name) else {
            return Found::UnknownCommand;
        };
        let row = &self.rows[place];
        match sub {
            Some(sub) if !row.subcommands.is_empty() => {
                let found = row.subcommands.find(sub).or_else(|| row.subcommands.find(ANY_OTHER));
                found.map_or(Found::UnknownSubcommand(place), Found::Row)
            }
            _ => Found::Row(place),
        }
    }

    /// The same, with a memory of the last name, because pipelines repeat commands.
    #[inline]
    pub fn find_again(&self, recent: &mut Recent, name: &[u8], sub: Option<&[u8]>) -> Found {
        if recent.is(name) {
            return Found::Row(recent.place);
        }
        let found = self.find(name, sub);
        if let Found::Row(place) = found
            && self.commands.find(name) == Some(place)
            && self.rows[place].subcommands.is_empty()
        {
            recent.note(name, place);
        }
        found
    }

    /// The row of an ordinary command, by its name; `None` for all others.
    #[inline]
    pub fn find_ordinary(&self, recent: &mut Recent, name: &[u8]) -> Option<(usize, &Row)> {
        match self.find_again(recent, name, None) {
            Found::Row(place) => Some((place, self.row(place))).filter(|(_, row)| row.is_ordinary),
            _ => None,
        }
    }

    /// The row of a whole command.
    #[must_use]
    pub fn row_of(&self, args: Args) -> Option<&Row> {
        match self.find(args.get(0), (args.len() > 1).then(|| args.get(1))) {
            Found::Row(place) => Some(self.row(place)),
            _ => None,
        }
    }

    /// The number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// True if there are no rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The row at a place that `find` has returned.
    #[must_use]
    pub fn row(&self, place: usize) -> &Row {
        &self.rows[place]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let row = |name: &str, arity| Row::new(name.into(), arity, Route::Any, Vec::new());
        Table::new(vec![row("client|id", 2), row("get", 2), row("client", -2)]).expect("links")
    }

    #[test]
    fn names_are_found_in_any_case() {
        let table = table();
        assert_eq!(table.find(b"GeT", Some(b"k")), Found::Row(1));
        assert_eq!(table.find(b"CLIENT", Some(b"Id")), Found::Row(0));
        assert_eq!(table.find(b"client", None), Found::Row(2));
        assert_eq!(table.find(b"client", Some(b"nope")), Found::UnknownSubcommand(2));
        assert_eq!(table.find(b"client|id", None), Found::UnknownCommand);
        assert_eq!(table.find(b"", None), Found::UnknownCommand);
    }

    #[test]
    fn a_remembered_name_is_found_as_any_other() {
        let table = table();
        let mut recent = Recent::default();
        assert_eq!(table.find_again(&mut recent, b"", None), Found::UnknownCommand);
        for _ in 0..2 {
            assert_eq!(table.find_again(&mut recent, b"GET", Some(b"k")), Found::Row(1));
            assert_eq!(table.find_again(&mut recent, b"gEt", None), Found::Row(1));
            assert_eq!(table.find_again(&mut recent, b"CLIENT", Some(b"ID")), Found::Row(0));
            assert_eq!(
                table.find_again(&mut recent, b"CLIENT", Some(b"x")),
                Found::UnknownSubcommand(2)
            );
            assert_eq!(table.find_again(&mut recent, b"ge", None), Found::UnknownCommand);
        }
    }

    #[test]
    fn arity_counts_the_name() {
        let table = table();
        assert!(table.row(1).takes(2) && !table.row(1).takes(3));
        assert!(table.row(2).takes(5) && !table.row(2).takes(1));
    }

    #[test]
    fn a_subcommand_needs_its_container() {
        let orphan = Row::new(b"a|b".to_vec(), 2, Route::Any, Vec::new());
        assert!(Table::new(vec![orphan]).is_err());
    }
}
