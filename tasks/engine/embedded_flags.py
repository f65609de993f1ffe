"""Flags of llama.cpp's server that the embedded engine understands.

One row for each parameter: its flags, the type of its value, and its attribute of
xllamacpp's CommonParams. A flag that is not here has no attribute there.

Source: common/arg.cpp of llama.cpp; CommonParams of xllamacpp 2026.10.11549.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import NamedTuple

# types without a value: `set` and `unset` write True and False
_SWITCHES = ("set", "unset", "rank", "loud")

# flags, type of the value, attribute
TABLE = """
-tb --threads-batch                   int        cpuparams_batch.n_threads
--cpu-strict                          bit        cpuparams.strict_cpu
--cpu-strict-batch                    bit        cpuparams_batch.strict_cpu
--prio                                prio       cpuparams.priority
--prio-batch                          prio       cpuparams_batch.priority
-C --cpu-mask                         mask       cpuparams.cpumask
-Cr --cpu-range                       range      cpuparams.cpumask
-Cb --cpu-mask-batch                  mask       cpuparams_batch.cpumask
-Crb --cpu-range-batch                range      cpuparams_batch.cpumask
--poll                                int        cpuparams.poll
--poll-batch                          int        cpuparams_batch.poll
-b --batch-size                       int        n_batch
-ub --ubatch-size                     int        n_ubatch
--keep                                int        n_keep
--swa-full                            set        swa_full
-fa --flash-attn                      flash      flash_attn_type
--perf                                unset      no_perf
--no-perf                             set        no_perf
-e --escape                           set        escape
--no-escape                           unset      escape
--rope-scaling                        rope       rope_scaling_type
--rope-scale                          inverse    rope_freq_scale
--rope-freq-base                      float      rope_freq_base
--rope-freq-scale                     float      rope_freq_scale
--yarn-orig-ctx                       int        yarn_orig_ctx
--yarn-ext-factor                     float      yarn_ext_factor
--yarn-attn-factor                    float      yarn_attn_factor
--yarn-beta-slow                      float      yarn_beta_slow
--yarn-beta-fast                      float      yarn_beta_fast
-kvo --kv-offload                     unset      no_kv_offload
-nkvo --no-kv-offload                 set        no_kv_offload
--repack                              unset      no_extra_bufts
-nr --no-repack                       set        no_extra_bufts
--no-host                             set        no_host
-ctk --cache-type-k                   cache      cache_type_k
-ctv --cache-type-v                   cache      cache_type_v
-lm --load-mode                       load       load_mode
-lzm --lazy-mode                      lazy       lazy_mode
--numa                                numa       numa
-ot --override-tensor                 text       tensor_buft_overrides
-sm --split-mode                      split      split_mode
-ts --tensor-split                    floats     tensor_split
-mg --main-gpu                        int        main_gpu
-fit --fit                            onoff      fit_params
-fitt --fit-target                    mebibytes  fit_params_target
-fitc --fit-ctx                       int        fit_params_min_ctx
--check-tensors                       set        check_tensors
--op-offload                          unset      no_op_offload
--no-op-offload                       set        no_op_offload
--lora                                lora       lora_adapters
--lora-scaled                         scaled     lora_adapters
--lora-init-without-apply             set        lora_init_without_apply
--offline                             set        offline
-lv --verbosity --log-verbosity       int        verbosity
-v --verbose --log-verbose            loud       verbosity
--log-jsonl                           set        log_json
--no-log-jsonl                        unset      log_json
--samplers                            text       sampling.samplers
-s --seed                             seed       sampling.seed
--ignore-eos                          set        sampling.ignore_eos
--temp --temperature                  float      sampling.temp
--top-k                               int        sampling.top_k
--top-p                               float      sampling.top_p
--min-p                               float      sampling.min_p
--xtc-probability                     float      sampling.xtc_probability
--xtc-threshold                       float      sampling.xtc_threshold
--typical --typical-p                 float      sampling.typ_p
--repeat-last-n                       int        sampling.penalty_last_n
--repeat-penalty                      float      sampling.penalty_repeat
--presence-penalty                    float      sampling.penalty_present
--frequency-penalty                   float      sampling.penalty_freq
--dry-multiplier                      float      sampling.dry_multiplier
--dry-base                            float      sampling.dry_base
--dry-allowed-length                  int        sampling.dry_allowed_length
--dry-penalty-last-n                  int        sampling.dry_penalty_last_n
--adaptive-target                     float      sampling.adaptive_target
--adaptive-decay                      float      sampling.adaptive_decay
--dynatemp-range                      float      sampling.dynatemp_range
--dynatemp-exp                        float      sampling.dynatemp_exponent
--mirostat                            int        sampling.mirostat
--mirostat-lr                         float      sampling.mirostat_eta
--mirostat-ent                        float      sampling.mirostat_tau
--grammar                             grammar    sampling.grammar
--grammar-file                        grammars   sampling.grammar
-bs --backend-sampling                set        sampling.backend_sampling
-md --model-draft --spec-draft-model  path       speculative.draft.mparams.path
--spec-type                           spec       speculative.types
--spec-draft-n-max                    int        speculative.draft.n_max
--spec-draft-n-min                    int        speculative.draft.n_min
--spec-draft-p-min --draft-p-min      float      speculative.draft.p_min
--spec-draft-p-split --draft-p-split  float      speculative.draft.p_split
--spec-draft-backend-sampling         set        speculative.draft.backend_sampling
--no-spec-draft-backend-sampling      unset      speculative.draft.backend_sampling
--spec-draft-sampling                 sampling   speculative.draft.probabilistic
-devd --device-draft --spec-draft-device                       text
                                                 speculative.draft.devices
-ngld --gpu-layers-draft --n-gpu-layers-draft --spec-draft-ngl layers
                                                 speculative.draft.n_gpu_layers
-td --threads-draft --spec-draft-threads                       int
                                                 speculative.draft.cpuparams.n_threads
-tbd --threads-batch-draft --spec-draft-threads-batch          int
                                           speculative.draft.cpuparams_batch.n_threads
--cpu-strict-draft --spec-draft-cpu-strict                     bit
                                                 speculative.draft.cpuparams.strict_cpu
--cpu-strict-batch-draft --spec-draft-cpu-strict-batch         bit
                                           speculative.draft.cpuparams_batch.strict_cpu
--prio-draft --spec-draft-prio                                 prio
                                                 speculative.draft.cpuparams.priority
--prio-batch-draft --spec-draft-prio-batch                     prio
                                           speculative.draft.cpuparams_batch.priority
-Cd --cpu-mask-draft --spec-draft-cpu-mask                     mask
                                                 speculative.draft.cpuparams.cpumask
-Crd --cpu-range-draft --spec-draft-cpu-range                  range
                                                 speculative.draft.cpuparams.cpumask
-Cbd --cpu-mask-batch-draft --spec-draft-cpu-mask-batch        mask
                                           speculative.draft.cpuparams_batch.cpumask
--poll-draft --spec-draft-poll                                 int
                                                 speculative.draft.cpuparams.poll
--poll-batch-draft --spec-draft-poll-batch                     int
                                           speculative.draft.cpuparams_batch.poll
-ctkd --cache-type-k-draft --spec-draft-type-k                 cache
                                                 speculative.draft.cache_type_k
-ctvd --cache-type-v-draft --spec-draft-type-v                 cache
                                                 speculative.draft.cache_type_v
-otd --override-tensor-draft --spec-draft-override-tensor      text
                                           speculative.draft.tensor_buft_overrides
--spec-synth-len                      float      speculative.synth_len
--spec-synth-rates                    floats     speculative.synth_rates
--spec-ngram-mod-n-min                int        speculative.ngram_mod.n_min
--spec-ngram-mod-n-max                int        speculative.ngram_mod.n_max
--spec-ngram-mod-n-match              int        speculative.ngram_mod.n_match
--spec-ngram-simple-size-n            int        speculative.ngram_simple.size_n
--spec-ngram-simple-size-m            int        speculative.ngram_simple.size_m
--spec-ngram-simple-min-hits          int        speculative.ngram_simple.min_hits
--spec-ngram-map-k-size-n             int        speculative.ngram_map_k.size_n
--spec-ngram-map-k-size-m             int        speculative.ngram_map_k.size_m
--spec-ngram-map-k-min-hits           int        speculative.ngram_map_k.min_hits
--spec-ngram-map-k4v-size-n           int        speculative.ngram_map_k4v.size_n
--spec-ngram-map-k4v-size-m           int        speculative.ngram_map_k4v.size_m
--spec-ngram-map-k4v-min-hits         int        speculative.ngram_map_k4v.min_hits
-lcs --lookup-cache-static            text  speculative.ngram_cache.lookup_cache_static
-lcd --lookup-cache-dynamic           text  speculative.ngram_cache.lookup_cache_dynamic
--kv-unified-per-slot                 int        kv_unified_per_slot
-ctxcp --ctx-checkpoints --swa-checkpoints       int   n_ctx_checkpoints
-cms --checkpoint-min-step            int        checkpoint_min_step
-cram --cache-ram                     int        cache_ram_mib
-kvu --kv-unified                     set        kv_unified
-no-kvu --no-kv-unified               unset      kv_unified
--cache-idle-slots                    set        cache_idle_slots
--no-cache-idle-slots                 unset      cache_idle_slots
--context-shift                       set        ctx_shift
--no-context-shift                    unset      ctx_shift
-r --reverse-prompt                   more       antiprompt
-sp --special                         set        special
--warmup                              set        warmup
--no-warmup                           unset      warmup
--pooling                             pooling    pooling_type
-cb --cont-batching                   set        cont_batching
-nocb --no-cont-batching              unset      cont_batching
--no-mmproj --no-mmproj-auto          set        no_mmproj
--mmproj-auto                         unset      no_mmproj
--mmproj-offload                      set        mmproj_use_gpu
--no-mmproj-offload                   unset      mmproj_use_gpu
-mmdev --mmproj-device                text       mmproj_device
--image-min-tokens                    int        image_min_tokens
--image-max-tokens                    int        image_max_tokens
--mtmd-batch-max-tokens               int        mtmd_batch_max_tokens
--video-fps                           float      video_fps
--video-timestamp-interval            int        video_timestamp_interval_ms
--video-ffmpeg-dir                    text       video_ffmpeg_bin_dir
-a --alias                            names      model_alias
--tags                                names      model_tags
--embd-normalize                      int        embd_normalize
--reuse-port                          set        reuse_port
--path                                text       public_path
--cors-origins                        text       cors_origins
--cors-methods                        text       cors_methods
--cors-headers                        text       cors_headers
--cors-credentials                    set        cors_credentials
--no-cors-credentials                 unset      cors_credentials
--api-prefix                          text       api_prefix
--ui-config --webui-config            text       ui_config_json
--ui-config-file --webui-config-file  file       ui_config_json
--ui-mcp-proxy --webui-mcp-proxy      set        ui_mcp_proxy
--no-ui-mcp-proxy --no-webui-mcp-proxy           unset ui_mcp_proxy
--mcp-servers-config                  text       mcp_servers_config
--mcp-servers-json                    text       mcp_servers_json
--tools                               list       server_tools
--tools-runtime                       text       server_tools_runtime
--ui --webui                          set        ui
--no-ui --no-webui                    unset      ui
--embedding --embeddings              set        embedding
--rerank --reranking                  rank       pooling_type
--ssl-key-file                        text       ssl_file_key
--ssl-cert-file                       text       ssl_file_cert
--chat-template-kwargs                json       default_template_kwargs
-to --timeout                         int        timeout_read,timeout_write
--sse-ping-interval                   int        sse_ping_interval
--threads-http                        int        n_threads_http
--cache-prompt                        set        cache_prompt
--no-cache-prompt                     unset      cache_prompt
--cache-reuse                         int        n_cache_reuse
--metrics                             set        endpoint_metrics
--props                               set        endpoint_props
--slots                               set        endpoint_slots
--no-slots                            unset      endpoint_slots
--log-prompts-dir                     text       path_prompts_log_dir
--slot-save-path                      text       slot_save_path
--media-path                          text       media_path
--jinja                               set        use_jinja
--no-jinja                            unset      use_jinja
--reasoning-format                    format     reasoning_format
-rea --reasoning                      reasoning  enable_reasoning
--reasoning-budget                    int        sampling.reasoning_budget_tokens
--reasoning-budget-message            text       sampling.reasoning_budget_message
--chat-template                       text       chat_template
--chat-template-file                  file       chat_template
--skip-chat-parsing                   set        force_pure_content_parser
--no-skip-chat-parsing                unset      force_pure_content_parser
--prefill-assistant                   set        prefill_assistant
--no-prefill-assistant                unset      prefill_assistant
-sps --slot-prompt-similarity         float      slot_prompt_similarity
--sleep-idle-seconds                  int        sleep_idle_seconds
"""


class Flag(NamedTuple):
    """One row of the table."""

    kind: str  # type of the value
    attributes: tuple[str, ...]

    @property
    def has_value(self) -> bool:
        """Whether a value follows the flag."""
        return self.kind not in _SWITCHES


def _flags() -> dict[str, Flag]:
    found = {}
    words: list[str] = []
    names: list[str] = []
    for word in TABLE.split():
        if word.startswith("-"):
            names.append(word)
            continue
        words.append(word)
        if len(words) == 2:
            flag = Flag(words[0], tuple(words[1].split(",")))
            found.update(dict.fromkeys(names, flag))
            words, names = [], []
    return found


FLAGS = _flags()


def suggestion(word: str, known: list[str]) -> str:
    """Return the nearest flag as a hint; "" if none is near."""
    near = get_close_matches(word, [*known, *FLAGS], 1)
    if not near:
        return ""
    return f"; did you mean {near[0]}?"
