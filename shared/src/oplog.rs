//! oplog
