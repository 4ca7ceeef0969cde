//! The data path of thREaDIS.
