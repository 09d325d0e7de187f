"""What the finished cells of a sweep show: arms, effects, costs."""
