//! The shared lanes by state and instance: one set for each state that clients are in.

use crate::lane::lane::State;
use std::collections::{HashMap, HashSet};

/// All sets of a worker; a set is known by its place.
#[derive(Debug, Default)]
pub(crate) struct LaneSets {
    sets: Vec<Set>,
    places: HashMap<State, u32>,
    /// The places of sets that have ended.
    free: Vec<u32>,
}

/// The lanes of one state, by instance.
#[derive(Debug)]
struct Set {
    state: State,
    /// The shared lanes.
    lanes: Vec<Option<u32>>,
}

impl LaneSets {
    /// The set for a state; created if new.
    ///
    /// # Panics
    /// Never: databases and restricted users are far fewer than 2^32.
    pub(crate) fn of(&mut self, state: State, instances: usize) -> u32 {
        *self.places.entry(state).or_insert_with(|| {
            let set = Set { state, lanes: vec![None; instances] };
            if let Some(place) = self.free.pop() {
                self.sets[place as usize] = set;
                return place;
            }
            self.sets.push(set);
            u32::try_from(self.sets.len() - 1).expect("databases are limited")
        })
    }

    #[inline]
    pub(crate) fn state(&self, set: u32) -> State {
        self.sets[set as usize].state
    }

    /// The shared lane of a set to an instance.
    #[inline]
    pub(crate) fn lane(&self, set: u32, instance: usize) -> Option<usize> {
        self.sets[set as usize].lanes[instance].map(|place| place as usize)
    }

    /// The same, mutable.
    pub(crate) fn lane_mut(&mut self, set: u32, instance: usize) -> &mut Option<u32> {
        &mut self.sets[set as usize].lanes[instance]
    }

    /// The sets whose user no longer exists under that number: no client will be in their state
    /// again.
    pub(crate) fn outlived(&self, is_over: impl Fn(State) -> bool) -> Vec<u32> {
        let over = self.places.iter().filter(|(state, _)| state.user != 0 && is_over(**state));
        over.map(|(_, &set)| set).collect()
    }

    /// Ends sets, except those still in use. Their places are reused.
    pub(crate) fn end(&mut self, sets: &[u32], in_use: &HashSet<u32>) {
        for &set in sets.iter().filter(|set| !in_use.contains(set)) {
            if self.places.remove(&self.state(set)).is_some() {
                self.free.push(set);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HashSet, LaneSets};
    use crate::lane::lane::State;

    #[test]
    fn places_of_users_that_are_others_by_now_are_used_again() {
        let mut sets = LaneSets::default();
        let everyone = sets.of(State::default(), 2);
        for user in 1..=1000 {
            let set = sets.of(State { user, ..State::default() }, 2);
            *sets.lane_mut(set, 1) = Some(7);
            let outlived = sets.outlived(|state| state.user < user);
            assert!(!outlived.contains(&everyone) && !outlived.contains(&set));
            sets.end(&outlived, &HashSet::from([everyone]));
        }
        assert!(sets.sets.len() <= 3, "{}", sets.sets.len());
        assert_eq!(sets.state(everyone), State::default());
        let newest = sets.of(State { user: 1000, ..State::default() }, 2);
        assert_eq!(sets.lane(newest, 1), Some(7));
    }

    #[test]
    fn a_set_that_is_in_use_stays() {
        let mut sets = LaneSets::default();
        let state = State { user: 1, ..State::default() };
        let set = sets.of(state, 1);
        *sets.lane_mut(set, 0) = Some(3);
        sets.end(&sets.outlived(|_| true), &HashSet::from([set]));
        assert_eq!((sets.of(state, 1), sets.lane(set, 0)), (set, Some(3)));
        sets.end(&sets.outlived(|_| true), &HashSet::new());
        let other = State { user: 2, ..State::default() };
        assert_eq!((sets.of(other, 1), sets.lane(set, 0)), (set, None));
    }
}
