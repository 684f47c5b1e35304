//! The built-in engines, one folder or file each: settings, code and unit tests together.

pub mod backtesting;
pub mod bars;
pub mod data_processing;
mod datetime;
pub mod dummy;
pub mod training;
