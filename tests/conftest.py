"""What all tests share."""

import torch

# The networks of the tests are so small that a second thread only waits for the first, for seconds
# where the machine is busy with something else.
torch.set_num_threads(1)
