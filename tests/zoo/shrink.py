"""A tiny configuration of any architecture: its own defaults, with every size made small.

Sizes go by the names that transformers' configurations share. ``OWN`` holds what those rules cannot know.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import transformers as t

LAYERS, HEADS, HEAD, WIDTH, FORWARD, POSITIONS = 2, 4, 16, 64, 64, 128

#: The first pattern that matches the whole of a name says how large it shall be.
_RULES: tuple[tuple[str, int], ...] = tuple(
    (re.compile(pattern).pattern, size)
    for pattern, size in (
        (r"(entity_)?vocab_size|.*_vocab_size|unpadded_vocab_size", 0),
        (r"max_(encoder_|decoder_|source_|target_)?position(s|_embeddings)|n_positions|n_ctx|max_seq_len", POSITIONS),
        (
            r"(encoder_|decoder_|num_|n_|num_hidden_|num_encoder_|num_decoder_|[lxr]_)(hidden_)?layers?|num_blocks",
            LAYERS,
        ),
        (r"depth|n_(in|out)put_layers|n_recurrent_layers|num_layers_per_stack", LAYERS),
        (r"(swa_)?num_key_value_heads|num_kv_heads|linear_num_key_heads|index_n_heads|num_query_groups", 2),
        (r"(.*_)?(num_)?(attention_)?heads?|mamba_n_heads|mamba_num_heads|linear_num_(value_)?heads", HEADS),
        (r"(.*_)?head_dim|d_head|dim_head|d_kv|kv_channels|attention_head_size|mamba_headdim|mamba_d_head", HEAD),
        (r"(.*_)?rope_head_dim|rotary_dim", 8),
        (r"(.*_)?(hidden_size|d_model|embed_dim|embedding_size|embedding_dim|emb_dim|n_embd|emb_size)|dim", WIDTH),
        (r"(.*_)?(d_inner|word_embed_proj_dim|lru_width|d_latents|output_proj_size|attention_hidden_size)", WIDTH),
        (r"(.*_)?(projection_dim|proj_dim|proj_size|visual_feat_dim|hidden_dim|true_hidden_size)", WIDTH),
        (
            r"(.*_)?(intermediate_size|ffn_dim|ffn_hidden_size|feed_forward_size|d_ff|dim_ff|dff|n_inner)(_mlp)?",
            FORWARD,
        ),
        (r"(n|num)_(routed_|local_)?experts|moe_num_experts", 4),
        (r"num_experts_per_tok(en)?|moe_topk|moe_k|top_k_experts", 2),
        (r"(num_|n_)expert_group|n_group|topk_group", 1),
        (r"first_k_dense_replace|num_dense_layers", 1),
        (r"(q|kv|o)_lora_rank|.*_rank|mamba_dt_rank|time_step_rank", 8),
        (r"(.*_)?(state_size|d_state|ssm_state_size)", 8),
        (r"(mamba_)?chunk_size|.*chunk_length", 16),
        (r"num_hash_buckets", POSITIONS),
        (r"index_topk", 64),
        (r"sliding_window|local_attention|attention_window|sliding_window_size|window_size", 16),
        (r"image_size|input_size", 32),
        (r"patch_size", 8),
        (r"num_mel_bins|num_latents|max_xpath_\w+_embeddings|max_2d_position_embeddings", 0),
    )
)

#: What the rules cannot know, by model type: lists that go with the number of layers, sizes that must fit each other.
OWN: dict[str, dict[str, Any]] = {
    "audio-spectrogram-transformer": {"max_length": 256, "num_mel_bins": 32},
    "big_bird": {"block_size": 4, "num_random_blocks": 1},  # sparse from 28 tokens on, not from 704
    "bigbird_pegasus": {"block_size": 4, "num_random_blocks": 1},
    "bamba": {"attn_layer_indices": [1], "mamba_expand": 1, "mamba_n_heads": HEADS, "mamba_d_head": HEAD},
    "blt": {"encoder_hash_byte_group_vocab": 64, "max_position_embeddings": POSITIONS},
    "dory": {
        "layer_types": ["full_attention"] * 3,
        "num_hidden_layers": 3,
        "n_input_layers": 1,
        "n_recurrent_layers": 1,
        "n_output_layers": 1,
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "clap_audio_model": {
        **{"patch_embeds_hidden_size": 16, "hidden_size": 128, "depths": [1] * 4, "num_attention_heads": [2] * 4},
        "num_mel_bins": 64,
    },
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in ("full_attention", "sliding_attention")
        }
    },
    "efficientnet": {"width_coefficient": 0.2, "depth_coefficient": 0.1, "hidden_dim": 256, "image_size": 64},
    "falcon_h1": {"mamba_expand": 1, "mamba_d_ssm": WIDTH, "mamba_d_head": HEAD, "mamba_n_heads": HEADS},
    "funnel": {"block_sizes": [1, 1], "num_decoder_layers": 1, "d_head": HEAD},
    "gemma3n_text": {
        "num_kv_shared_layers": 0,
        "activation_sparsity_pattern": None,
        "hidden_size_per_layer_input": 8,
        "intermediate_size": FORWARD,
    },
    "gemma4_text": {"hidden_size_per_layer_input": 8},
    "gpt_neo": {"num_layers": 2, "attention_types": [[["global", "local"], 1]], "window_size": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "layoutlmv3": {"coordinate_size": 12, "shape_size": 8},
    "levit": {"image_size": 64, "patch_size": 16},
    "lilt": {"hidden_size": 48},
    "lw_detr": {"projector_scale_factors": [1.0], "group_detr": 1},
    "lw_detr_vit": {"image_size": 64},
    "mobilevitv2": {"image_size": 128},
    "mobilebert": {"intra_bottleneck_size": 32, "true_hidden_size": 32, "embedding_size": 32},
    "nemotron_h": {"n_groups": 1},
    "perceiver": {"num_cross_attention_heads": 1},
    **dict.fromkeys(
        ("swin", "swinv2", "donut-swin", "maskformer-swin"),
        {"window_size": 2, "image_size": 64, "patch_size": 4, "num_heads": [2] * 4},
    ),
    "t5": {"decoder_start_token_id": 0},
    "mt5": {"decoder_start_token_id": 0},
    "umt5": {"decoder_start_token_id": 0},
    "whisper": {"max_source_positions": 1500, "max_target_positions": 448},
    "voxtral_encoder": {"max_source_positions": 1500},
    "speech-encoder-decoder": {"decoder_start_token_id": 1, "pad_token_id": 0},
    "moonshine_streaming": {"num_key_value_heads": HEADS},
    "mimi": {"upsample_groups": 16, "num_filters": 8, "codebook_dim": 16, "vector_quantization_hidden_dimension": 16},
    "beit": {"num_hidden_layers": 4, "out_indices": [1, 2, 3, 4]},
    "detr": {"encoder_attention_heads": 8, "decoder_attention_heads": 8},
    "xmod": {"languages": ["en_XX"], "default_language": "en_XX"},
    "granitemoehybrid": {
        "layer_types": ["linear_attention", "full_attention"],
        "mamba_expand": 1,
        "mamba_n_heads": HEADS,
        "mamba_d_head": HEAD,
    },
    "hunyuan_v1_dense": {"head_dim": HEAD},
    "hunyuan_v1_moe": {"head_dim": HEAD},
    "inkling2_loop_text": {"unpadded_vocab_size": 128},
    "inkling2_text": {"unpadded_vocab_size": 128},
    "hrm_text": {"num_layers_per_stack": 1, "num_hidden_layers": 8},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2, "num_dense_layers": 1},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": HEAD,
        "indexer_budget": 64,
        "indexer_compress_ratio": 4,
    },
    "longcat_flash": {"head_dim": HEAD, "qk_head_dim": 2 * HEAD, "zero_expert_num": 2},
    "luke": {"entity_vocab_size": 64},
    "mamba2": {"expand": 1, "n_groups": 1, "num_heads": HEADS, "head_dim": HEAD},
    "ministral": {"head_dim": HEAD},
    "nemotron": {"head_dim": HEAD, "num_key_value_heads": 2, "num_attention_heads": HEADS},
    "recurrent_gemma": {"num_hidden_layers": 3, "attention_window_size": 16},
    "reformer": {"axial_pos_shape": [16, 8], "axial_pos_embds_dim": [32, 32], "attn_layers": ["local", "lsh"]},
    "xlnet": {"d_head": HEAD},
    "zoedepth": {"bottleneck_features": 32},
    "zamba2": {"mamba_expand": 1, "attention_hidden_size": 2 * WIDTH, "attention_head_dim": 2 * HEAD},
    "xlstm": {"qk_dim_factor": 1.0},
    "zamba": {
        "num_hidden_layers": 6,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention"] * 2,
        "attention_hidden_size": 2 * WIDTH,
        "attention_head_dim": 2 * HEAD,
    },
}

#: Ids of marks that a text's tokenizer does not know lie at the end of the vocabulary, one each.
_MARK = re.compile(r".*_(token_id|token_index|index)|unk_index|mask_index")


def _small(name: str, value: int) -> int | None:
    for pattern, size in _RULES:
        if re.fullmatch(pattern, name):
            return None if size == 0 or value <= size else size
    return None


def _chosen_layers(default: t.PreTrainedConfig) -> dict[str, Any]:
    """One layer of each kind that a configuration mixes, where it lists what each layer is."""
    count = getattr(default, "num_hidden_layers", None)
    lists = {
        name: value
        for name, value in vars(default).items()
        if isinstance(value, list) and len(value) == count and re.search("layer|block|indexer", name)
    }
    kinds = list(zip(*lists.values(), strict=True))
    places = sorted({kinds.index(kind) for kind in kinds})
    if len(places) < 2:
        return {}
    return {"num_hidden_layers": len(places)} | {n: [value[i] for i in places] for n, value in lists.items()}


def shrink(kind: type[t.PreTrainedConfig], vocabulary: int, **more: Any) -> t.PreTrainedConfig:
    """A configuration of ``kind`` with ``vocabulary`` tokens, small enough for milliseconds; ``more`` goes over it."""
    own = OWN.get(kind.model_type, {})
    words: dict[str, Any] = {}
    names = set(inspect.signature(kind.__init__).parameters) | set(getattr(kind, "__dataclass_fields__", ()))
    marks = 0
    default = kind()
    chosen = _chosen_layers(default)
    for name, value in vars(default).items():
        if isinstance(value, t.PreTrainedConfig):
            words[name] = shrink(type(value), vocabulary, **more).to_dict()
        elif name in ("vocab_size", "vocab_size_per_layer_input"):
            words[name] = vocabulary
        elif name in chosen:
            words[name] = chosen[name]
        elif name in ("head_dim", "qk_head_dim") and hasattr(default, "qk_rope_head_dim"):
            continue  # the sum of others
        elif name == "num_key_value_heads" and value == getattr(default, "num_attention_heads", 0):
            words[name] = HEADS
        elif isinstance(value, int) and not isinstance(value, bool):
            if _MARK.fullmatch(name) and value >= vocabulary:
                marks += 1
                words[name] = vocabulary - marks
                continue
            small = _small(name, value)
            if small is not None:
                words[name] = small
    if "initializer_range" in names:
        words["initializer_range"] = 0.3
    return kind(**words | {**more, **own})
