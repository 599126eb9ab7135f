//! The gate: every safety rule that can be switched off is missed by the walk within a bounded
//! number of runs. A rule that nobody would miss is not tested.
