//! What is long, between the two languages. Python copies it with its lock held, in which nobody
//! else is served: so it goes piece by piece, and what need not be copied is not.

use crate::resp::request::{push_array, push_bulk_head};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a piece, which take less than a millisecond; what is not longer is copied at once.
pub(super) const PIECE: usize = 1024 * 1024;
/// Bytes of a word that is not copied to be packed.
const STAYS: usize = 64 * 1024;

/// A copy; of what is long while others go on.
pub(super) fn copied(py: Python, data: &[u8]) -> Vec<u8> {
    if data.len() > PIECE { py.detach(|| data.to_vec()) } else { data.to_vec() }
}

/// Something long, piece by piece.
#[pyclass]
pub(super) struct Pieces {
    data: Arc<Vec<u8>>,
    rest: Range<usize>,
}

impl Pieces {
    /// A part of something.
    pub(super) fn new(data: Arc<Vec<u8>>, rest: Range<usize>) -> Self {
        Self { data, rest }
    }
}

#[pymethods]
impl Pieces {
    fn __iter__(slf: PyRef<'_, Self>) -> PyRef<'_, Self> {
        slf
    }

    fn __next__<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        if self.rest.is_empty() {
            self.data = Arc::default();
            return None;
        }
        let end = self.rest.end.min(self.rest.start + PIECE);
        let piece = PyBytes::new(py, &self.data[self.rest.start..end]);
        self.rest.start = end;
        Some(piece)
    }
}

/// A word of a command: bytes, or what is packed already.
#[derive(FromPyObject)]
pub(super) enum Word<'py> {
    Bytes(PyBackedBytes),
    Packed(PyRef<'py, Packed>),
}

enum Part {
    Here(Vec<u8>),
    There(PyBackedBytes),
}

impl Part {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Here(bytes) => bytes,
            Self::There(bytes) => bytes,
        }
    }
}

/// Commands in canonical form, behind a head; long words stay where they are.
#[pyclass(frozen)]
pub(super) struct Packed {
    parts: Vec<Part>,
    /// Where each part ends.
    ends: Vec<usize>,
}

impl Packed {
    fn here(&mut self) -> &mut Vec<u8> {
        if !matches!(self.parts.last(), Some(Part::Here(_))) {
            self.parts.push(Part::Here(Vec::new()));
        }
        match self.parts.last_mut() {
            Some(Part::Here(bytes)) => bytes,
            _ => unreachable!("it was just added"),
        }
    }

    fn push(&mut self, py: Python, word: Word) {
        match word {
            Word::Bytes(bytes) => {
                push_bulk_head(self.here(), bytes.len());
                if bytes.len() < STAYS {
                    self.here().extend_from_slice(&bytes);
                } else {
                    self.parts.push(Part::There(bytes));
                }
            }
            Word::Packed(packed) => {
                push_bulk_head(self.here(), packed.__len__());
                for part in &packed.parts {
                    match part {
                        Part::Here(bytes) => self.here().extend_from_slice(bytes),
                        Part::There(bytes) => self.parts.push(Part::There(bytes.clone_ref(py))),
                    }
                }
            }
        }
        self.here().extend_from_slice(b"\r\n");
    }
}

#[pymethods]
impl Packed {
    #[new]
    #[pyo3(signature = (commands, head=None))]
    pub(crate) fn new(py: Python<'_>, commands: Vec<Vec<Word>>, head: Option<&[u8]>) -> Self {
        let first = Part::Here(head.unwrap_or_default().to_vec());
        let mut packed = Self { parts: vec![first], ends: Vec::new() };
        for words in commands {
            push_array(packed.here(), words.len());
            for word in words {
                packed.push(py, word);
            }
        }
        let mut end = 0;
        for part in &packed.parts {
            end += part.bytes().len();
            packed.ends.push(end);
        }
        packed
    }

    fn __len__(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    fn __bytes__<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.part(py, 0, usize::MAX)
    }

    /// So many bytes from there on, or as many as there are.
    fn part<'py>(&self, py: Python<'py>, begin: usize, length: usize) -> Bound<'py, PyBytes> {
        if let ([Part::Here(bytes)], 0) = (&self.parts[..], begin)
            && bytes.len() <= length
        {
            return PyBytes::new(py, bytes);
        }
        let end = self.__len__().min(begin.saturating_add(length));
        let mut found = Vec::with_capacity(end.saturating_sub(begin));
        let first = self.ends.partition_point(|&at| at <= begin);
        for (part, &at) in self.parts.iter().zip(&self.ends).skip(first) {
            let start = at - part.bytes().len();
            if start >= end {
                break;
            }
            let wanted = begin.saturating_sub(start)..part.bytes().len().min(end - start);
            found.extend_from_slice(&part.bytes()[wanted]);
        }
        PyBytes::new(py, &found)
    }
}
