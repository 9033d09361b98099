"""What survives a power cut: files, index, exams, jobs, outbox."""
