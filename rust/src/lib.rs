//! The data path of thREaDIS.

pub mod load;
#[cfg(feature = "python")]
mod python;
