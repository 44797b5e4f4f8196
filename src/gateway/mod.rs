//! The gateway client: signs, sends and classifies. It does not retry and does not remember.
