"""How a task learns, as parts behind three protocols: what is replayed, what is added, what is offered."""
