//! Places of lanes by what they are looked for by.

use crate::lane::lane::Duty;
use std::collections::HashMap;

/// Places of a worker's lanes.
#[derive(Debug, Default)]
pub(crate) struct LaneLists {
    /// Spare lanes and those for locked pops, by set and instance.
    pub(crate) by_duty: HashMap<(Duty, u32, usize), Vec<usize>>,
    pub(crate) by_instance: HashMap<usize, Vec<usize>>,
}
