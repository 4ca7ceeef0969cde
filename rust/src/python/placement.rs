//! Where keys live, for the coordinator and for `threadis where`.

use crate::routing::placement::{Edge, Placement, Rule};
use crate::routing::slots::SlotMap;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use std::sync::Arc;

/// A rule: its literals, and where its braces are.
type RuleParts = (Vec<Vec<u8>>, Edge, Edge);

/// Where keys live.
#[pyclass(frozen, name = "Placement")]
pub(super) struct PyPlacement(pub(super) Arc<Placement>);

#[pymethods]
impl PyPlacement {
    /// From the slot map, the rules in their order, and pairs of a database and its instance.
    #[new]
    #[pyo3(signature = (slot_map, instances, rules = Vec::new(), pins = Vec::new()))]
    #[allow(clippy::needless_pass_by_value, reason = "Python hands values over")]
    pub(crate) fn new(
        slot_map: Vec<(usize, usize, u16)>,
        instances: usize,
        rules: Vec<RuleParts>,
        pins: Vec<(u32, u16)>,
    ) -> PyResult<Self> {
        let bad = PyValueError::new_err::<String>;
        let slot_map = SlotMap::new(&slot_map, instances).map_err(bad)?;
        let rules = rules.iter().map(|(literals, open, close)| Rule::new(literals, *open, *close));
        let rules = rules.collect::<Result<Vec<_>, _>>().map_err(bad)?;
        if pins.iter().any(|&(_, instance)| usize::from(instance) >= instances) {
            return Err(bad("a database is pinned to an unknown instance".to_owned()));
        }
        Ok(Self(Arc::new(Placement::new(slot_map, rules, &pins))))
    }

    /// The slot of a key.
    fn slot(&self, key: &[u8]) -> usize {
        self.0.slot(key)
    }

    /// The instance of a key in a database.
    fn instance(&self, db: u32, key: &[u8]) -> u16 {
        self.0.instance(db, key)
    }

    /// The instances of many keys in a database.
    #[allow(clippy::needless_pass_by_value, reason = "Python hands values over")]
    fn instances(&self, db: u32, keys: Vec<PyBackedBytes>) -> Vec<u16> {
        keys.iter().map(|key| self.0.instance(db, key)).collect()
    }

    /// Begin and end of what decides about a key, and the number of the rule that says so.
    fn part(&self, key: &[u8]) -> (usize, usize, Option<usize>) {
        let part = self.0.part(key);
        (part.begin, part.end, part.rule)
    }
}
