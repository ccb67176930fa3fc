"""The cube toy of the ALP-GMM paper: a student without a policy, for tests of task teachers."""
