//! The built-in engines, one folder or file each: settings, code and unit tests together.

pub mod data_processing;
pub mod dummy;
