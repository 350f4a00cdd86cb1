"""The daemon: one asyncio process that keeps the queue and carries out the plan."""
