//! What a specification may ask for without being insecure.
