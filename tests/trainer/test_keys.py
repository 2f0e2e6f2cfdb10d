from dreambooth_trainer.keys import key_of


def test_keys_follow_all_parts() -> None:
    keys = {key_of("vae", "pictures", 64), key_of("vae", "pictures", 32), key_of("vae", "other", 64)}
    assert len(keys) == 3
    assert key_of("vae", 64) == key_of("vae", 64)
