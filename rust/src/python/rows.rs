//! Rows of the command table, as they come from Python.

use super::letters::Command;
use crate::catalog::channels;
use crate::catalog::key_specs::{Begin, Find, KeySpec, Span};
use crate::catalog::merge_kind::Merge;
use crate::catalog::table::{Route, Row, Table, Verb};
use crate::resp::request::{Args, push_array, push_bulk, with_args};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

/// One row of the command table, as `threadis.commands` derives it.
#[derive(FromPyObject)]
pub(super) struct CommandRow {
    name: String,
    arity: i64,
    no_auth: bool,
    may_replicate: bool,
    may_need_memory: bool,
    writes: bool,
    feeds: bool,
    streams: bool,
    multi_refusal: String,
    protection: String,
    is_open_to_local: bool,
    needs_coordinator: bool,
    ends_multi: bool,
    blocks: bool,
    takes_first: bool,
    is_logged: bool,
    is_shown: bool,
    touches_keys: bool,
    route: String,
    detail: String,
    keys: Vec<KeyRow>,
    special_words: Vec<String>,
    words_until: String,
    traits: Vec<String>,
    refusal: String,
}

/// One key specification.
#[derive(FromPyObject)]
struct KeyRow {
    index: usize,
    keyword: String,
    start_from: i64,
    last: i64,
    step: usize,
    limit: usize,
    is_count: bool,
    number: usize,
    first: usize,
}

impl KeyRow {
    fn into_spec(self) -> KeySpec {
        let begin = if self.keyword.is_empty() {
            Begin::Index(self.index)
        } else {
            Begin::Keyword { word: self.keyword.into_bytes(), from: self.start_from }
        };
        let find = if self.is_count {
            Find::Count { number: self.number, first: self.first, step: self.step.max(1) }
        } else {
            Find::Range { last: self.last, step: self.step.max(1), limit: self.limit }
        };
        KeySpec { begin, find }
    }
}

fn merge(name: &str) -> Result<Merge, String> {
    Ok(match name {
        "sum" => Merge::Sum,
        "min" => Merge::Min,
        "max" => Merge::Max,
        "and" => Merge::And,
        "or" => Merge::Or,
        "all_succeeded" => Merge::AllSucceeded,
        "one_succeeded" => Merge::OneSucceeded,
        "concat" => Merge::Concat,
        "keyed" => Merge::Keyed,
        _ => return Err(format!("unknown merge {name:?}")),
    })
}

fn verb(name: &str) -> Result<Verb, String> {
    Ok(match name {
        "ping" => Verb::Ping,
        "echo" => Verb::Echo,
        "quit" => Verb::Quit,
        "reset" => Verb::Reset,
        "hello" => Verb::Hello,
        "auth" => Verb::Auth,
        "select" => Verb::Select,
        "client|id" => Verb::ClientId,
        "client|getname" => Verb::ClientGetname,
        "client|setname" => Verb::ClientSetname,
        "client|setinfo" => Verb::ClientSetinfo,
        "client|no-evict" => Verb::ClientNoEvict,
        "client|no-touch" => Verb::ClientNoTouch,
        "client|reply" => Verb::ClientReply,
        "client|capa" => Verb::ClientCapa,
        "multi" => Verb::Multi,
        "exec" => Verb::Exec,
        "watch" => Verb::Watch,
        "discard" => Verb::Discard,
        _ => return Err(format!("no worker answers {name:?}")),
    })
}

impl CommandRow {
    pub(super) fn into_row(self) -> Result<Row, String> {
        let route = match self.route.as_str() {
            "keys" => Route::Keys,
            "split" => Route::Split(merge(&self.detail)?),
            "all" => Route::All(merge(&self.detail)?),
            "any" => Route::Any,
            "scan" => Route::Scan,
            "session" => Route::Session(verb(&self.detail)?),
            "pubsub" => Route::Pubsub(
                channels::Verb::from_name(&self.detail)
                    .ok_or_else(|| format!("no subscriptions for {:?}", self.detail))?,
            ),
            "script" => Route::Script,
            "coordinator" => Route::Coordinator,
            "refuse" => Route::Refuse,
            other => return Err(format!("{}: unknown route {other:?}", self.name)),
        };
        let keys = self.keys.into_iter().map(KeyRow::into_spec).collect();
        let mut row = Row::new(self.name.into_bytes(), self.arity, route, keys);
        row.parts = match route {
            Route::Split(merge) => Some(merge),
            Route::Keys if !self.detail.is_empty() => Some(merge(&self.detail)?),
            _ => None,
        };
        row.no_auth = self.no_auth;
        row.may_replicate = self.may_replicate;
        row.may_need_memory = self.may_need_memory;
        row.writes = self.writes;
        row.multi_refusal = self.multi_refusal.into_bytes();
        row.protection = self.protection.into_bytes();
        row.is_open_to_local = self.is_open_to_local;
        row.feeds = self.feeds;
        row.streams = self.streams;
        row.needs_coordinator = self.needs_coordinator;
        row.ends_multi = self.ends_multi;
        row.blocks = self.blocks;
        row.takes_first = self.takes_first;
        row.is_logged = self.is_logged;
        row.is_shown = self.is_shown;
        row.touches_keys = self.touches_keys;
        row.special_words = self.special_words.into_iter().map(String::into_bytes).collect();
        row.words_until = self.words_until.into_bytes();
        for name in &self.traits {
            row.traits.add(name)?;
        }
        row.refusal = self.refusal.into_bytes();
        Ok(row)
    }
}

/// A row's name, and the arguments that each key specification names.
pub(super) type Found<'py> = (String, Vec<Vec<Bound<'py, PyBytes>>>);

/// Bytes of a word that are looked at to find keys: names, numbers and options are shorter.
const LOOKED_AT: usize = 1024;

/// Looks a command up.
pub(super) fn find<'py>(table: &Table, words: &[Bound<'py, PyBytes>]) -> Option<Found<'py>> {
    let heads = words.iter().map(|word| {
        let word = word.as_bytes();
        &word[..word.len().min(LOOKED_AT)]
    });
    with_row(table, heads, |row, args| {
        let spans = row.keys.iter().map(|spec| spec.span(args));
        let named = |span: Span| span.indices().map(|at| words[at].clone()).collect();
        let keys = spans.map(|span| span.map_or(Vec::new(), named));
        (String::from_utf8_lossy(&row.name).into_owned(), keys.collect())
    })
}

/// The same for a command that the coordinator has.
pub(super) fn with_command(
    py: Python,
    table: &Table,
    command: &Command,
    run: impl FnOnce(&Row, Args),
) -> PyResult<()> {
    let words: Vec<PyBackedBytes> = command.args.extract(py)?;
    with_row(table, words.iter().map(AsRef::as_ref), run);
    Ok(())
}

/// Looks a command up, and does something with its row and its arguments.
fn with_row<'a, T>(
    table: &Table,
    words: impl ExactSizeIterator<Item = &'a [u8]>,
    run: impl FnOnce(&Row, Args) -> T,
) -> Option<T> {
    let mut raw = Vec::new();
    push_array(&mut raw, words.len());
    for word in words {
        push_bulk(&mut raw, word);
    }
    with_args(&raw, |args| Some(run(table.row_of(args)?, args))).flatten()
}
