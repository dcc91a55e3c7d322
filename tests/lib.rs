//! Nothing to link against: the tests are the binary `e2e`, see main.rs.
