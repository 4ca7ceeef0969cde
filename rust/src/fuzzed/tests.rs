//! Every target with its corpus, and with what a fuzzer would make of it in a moment.

use super::TARGETS;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// Changed inputs of each target; a fuzzer (`make fuzz`) tries more, and looks where they lead.
const ROUNDS: usize = 2000;
/// Changes of one input.
const CHANGES: usize = 4;
/// Bytes that grammars are made of.
const TOKENS: [&[u8]; 22] = [
    b"\r\n",
    b"\n",
    b"|",
    b"&",
    b"*",
    b"$",
    b":",
    b"-",
    b"+",
    b"0",
    b"1",
    b"-1",
    b"9",
    b"*0\r\n",
    b"$-1\r\n",
    b"*2\r\n",
    b":1\r\n",
    b"18446744073709551615",
    b"9223372036854775807",
    b"\"",
    b"\\",
    b"[^a-c]",
];

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

fn names(of: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder(of)).expect("a folder");
    let stem = |path: PathBuf| path.file_stem().expect("a name").to_string_lossy().into_owned();
    entries.map(|entry| stem(entry.expect("an entry").path())).collect()
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(folder("corpus").join(target)).expect("a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a file")).collect()
}

fn check(name: &str, target: fn(&[u8]), data: &[u8]) {
    let done = catch_unwind(AssertUnwindSafe(|| target(data)));
    assert!(done.is_ok(), "{name} fails with b\"{}\"", data.escape_ascii());
}

#[test]
fn every_target_has_a_corpus_and_a_program() {
    let known: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("corpus"), known);
    assert_eq!(names("fuzz_targets"), known);
}

#[test]
fn what_the_targets_state_holds_for_their_corpora() {
    for &(name, target) in TARGETS {
        let inputs = corpus(name);
        assert!(inputs.len() > 1, "{name}");
        for input in &inputs {
            check(name, target, input);
        }
    }
}

#[test]
fn it_holds_for_inputs_like_them() {
    for &(name, target) in TARGETS {
        let inputs = corpus(name);
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
        for _ in 0..ROUNDS {
            let mut input = chance.one_of(&inputs).clone();
            for _ in 0..=chance.below(CHANGES) {
                chance.change(&mut input, &inputs);
            }
            check(name, target, &input);
        }
    }
}

/// Numbers that look random, and are the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).expect("31 bits") % end.max(1)
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    fn change(&mut self, input: &mut Vec<u8>, others: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let end = (at + self.below(8)).min(input.len());
        match self.below(6) {
            0 if at < input.len() => input[at] = self.below(256).to_le_bytes()[0],
            1 => drop(input.drain(at..end)),
            2 => input.extend_from_within(at..end),
            3 => {
                let other = self.one_of(others);
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            4 => {
                let token = *self.one_of(&TOKENS);
                input.splice(at..end, token.iter().copied());
            }
            _ => {
                let token = *self.one_of(&TOKENS);
                input.splice(at..at, token.iter().copied());
            }
        }
    }
}
