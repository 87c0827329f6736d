"""The process: builds one worker of its parts, starts it and ends it."""
