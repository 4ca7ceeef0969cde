//! Finds lanes by index, so that a worker with hundreds of lanes does not go through them all.

use crate::lane::lane::{Duty, Lane};
use crate::lane::pool::Lanes;

/// The most spare lanes of one state to one instance.
const SPARES: usize = 8;

impl Lanes {
    /// The places of the lanes to an instance.
    #[must_use]
    pub fn of_instance(&self, instance: usize) -> Vec<usize> {
        self.lists.by_instance.get(&instance).cloned().unwrap_or_default()
    }

    /// The usable lanes of a set to an instance with this duty, which is spare or locked pops.
    pub(crate) fn of_duty(
        &self,
        duty: Duty,
        set: u32,
        instance: usize,
    ) -> impl Iterator<Item = usize> {
        let listed = self.lists.by_duty.get(&(duty, set, instance)).map_or(&[][..], Vec::as_slice);
        listed.iter().copied().filter(|&place| !self.open[place].is_broken)
    }

    /// Indexes a lane that was opened.
    pub(crate) fn list(&mut self, place: usize) {
        let instance = self.open[place].instance;
        self.lists.by_instance.entry(instance).or_default().push(place);
        self.list_duty(place);
    }

    /// Removes a lane that is about to be closed from the indexes.
    pub(crate) fn unlist(&mut self, place: usize) {
        self.unlist_duty(place);
        if let Some(places) = self.lists.by_instance.get_mut(&self.open[place].instance) {
            places.retain(|&known| known != place);
        }
    }

    fn list_duty(&mut self, place: usize) {
        let Lane { duty, set, instance, .. } = self.open[place];
        if matches!(duty, Duty::Spare | Duty::LockedPops) {
            self.lists.by_duty.entry((duty, set, instance)).or_default().push(place);
        }
    }

    fn unlist_duty(&mut self, place: usize) {
        let Lane { duty, set, instance, .. } = self.open[place];
        if let Some(places) = self.lists.by_duty.get_mut(&(duty, set, instance)) {
            places.retain(|&known| known != place);
            if places.is_empty() {
                self.lists.by_duty.remove(&(duty, set, instance));
            }
        }
    }

    pub(crate) fn set_duty(&mut self, place: usize, duty: Duty) {
        self.unlist_duty(place);
        let before = std::mem::replace(&mut self.open[place].duty, duty);
        self.aside -= usize::from(before.is_aside());
        self.aside += usize::from(duty.is_aside());
        self.list_duty(place);
    }

    /// Keeps a lane without commands in flight as a spare; false if there are enough spare lanes.
    pub fn spare(&mut self, place: usize) -> bool {
        let lane = &self.open[place];
        if self.of_duty(Duty::Spare, lane.set, lane.instance).count() >= SPARES {
            return false;
        }
        self.set_duty(place, Duty::Spare);
        true
    }

    /// A spare lane, which the caller gives a duty.
    #[must_use]
    pub fn find_spare(&self, set: u32, instance: usize) -> Option<usize> {
        self.of_duty(Duty::Spare, set, instance).next()
    }
}
