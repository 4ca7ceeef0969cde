//! The module `threadis._core`.

use pyo3::prelude::*;

#[pymodule]
mod _core {
    #[pymodule_export]
    use crate::load::python::{preload_keys, run_load};
}
