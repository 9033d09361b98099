"""Networks: what smp does not have ready."""
