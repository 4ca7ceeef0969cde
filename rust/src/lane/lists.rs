//! Indexes of lanes by instance and by duty.

use crate::lane::lane::Duty;
use std::collections::HashMap;

/// The places of a worker's lanes.
#[derive(Debug, Default)]
pub(crate) struct LaneLists {
    /// The spare lanes and those of locked pops, by set and instance.
    pub(crate) by_duty: HashMap<(Duty, u32, usize), Vec<usize>>,
    pub(crate) by_instance: HashMap<usize, Vec<usize>>,
}
