import pytest

from gald.data.loading.sampler import EvalSampler, GlobalBatchSampler


def test_an_epoch_is_a_permutation_without_the_incomplete_last_batch():
    keys = [key for batch in GlobalBatchSampler(23, 5, 5, seed=3) for key in batch]
    assert len(keys) == 20 and len({draw.image for draw in keys}) == 20
    assert {draw.epoch for draw in keys} == {0}


def test_epochs_and_seeds_differ():
    first, later, other = (GlobalBatchSampler(16, 4, 4, seed=seed) for seed in (0, 0, 1))
    later.epoch = 1
    orders = [
        [draw.image for batch in sampler for draw in batch] for sampler in (first, later, other)
    ]
    assert orders[0] != orders[1] and orders[0] != orders[2]


@pytest.mark.parametrize(("world", "micro"), [(1, 8), (1, 2), (2, 4), (2, 1), (4, 2), (8, 1)])
def test_the_images_of_a_step_do_not_depend_on_processes_or_micro_batches(world, micro):
    expected = list(GlobalBatchSampler(50, 8, 8, seed=1))
    ranks = [list(GlobalBatchSampler(50, 8, micro, 1, rank, world)) for rank in range(world)]
    accumulate = 8 // world // micro
    assert {len(batches) for batches in ranks} == {6 * accumulate}
    for step in range(6):
        rows = slice(step * accumulate, (step + 1) * accumulate)
        keys = [key for batches in ranks for batch in batches[rows] for key in batch]
        assert keys == expected[step]


def test_a_start_within_the_epoch_continues_it():
    sampler = GlobalBatchSampler(32, 8, 2)
    whole = list(sampler)
    sampler.start = 7
    assert list(sampler) == whole[7:]
    assert len(sampler) == 16  # still that of the whole epoch


def test_a_dataset_smaller_than_a_batch_names_both_numbers():
    with pytest.raises(ValueError, match=r"has 7 images but data\.global_batch_size is 8; lower"):
        GlobalBatchSampler(7, 8, 8)


@pytest.mark.parametrize(("size", "world"), [(101, 3), (233, 4), (5, 8), (8, 8), (1, 1)])
def test_evaluation_sees_every_image_once(size, world):
    ranks = [EvalSampler(size, rank, world) for rank in range(world)]
    assert sorted(i for rank in ranks for i in rank) == list(range(size))
    assert sum(map(len, ranks)) == size
