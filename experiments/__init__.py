"""What users run: the command line, comparisons of task teachers, statistics, pictures, benchmarks."""
