"""Skills for programs that call programs: each a folder with a file SKILL.md."""
