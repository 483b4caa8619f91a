{{- /* The settings that a program knows; written by make manifests. */ -}}
{{- define "gpu-fraction.settings" -}}
{{- get (mustFromJson `{
  "webhook": "allow_pod_backend amd_partition amd_partitions bitfusion_os bitfusion_version cert_ca_life cert_extra_names cert_leaf_life cert_retire cert_settle default_isolation default_placement drain_least drain_most elastic_gpu_kind env event_loop framework_env gpu_memory_by_model gpu_memory_mib gpushare_memory_unit hami_vendor intel_resource intel_shared_dev_num kai_queue left_to_schedulers log_level max_cards max_memory namespace_backends nvidia_dra_mig_model nvidia_dra_mode nvidia_dra_shares nvidia_mig_model nvidia_mig_strategy nvidia_shared_replicas policy_host_devices policy_node_name policy_other_scheduler policy_privileged quota_ttl require_quota require_quota_priority_classes runtime_class volcano_memory_factor",
  "controller": "amd_partition amd_partitions cert_ca_life cert_extra_names cert_leaf_life cert_retire cert_settle dra_template_grace gpu_memory_by_model gpu_memory_mib gpushare_memory_unit intel_shared_dev_num lease_duration log_level nvidia_dra_mig_model nvidia_dra_mode nvidia_dra_shares nvidia_mig_model nvidia_shared_replicas quota_resync quota_ttl volcano_memory_factor",
  "scheduler-extender": "event_loop log_level",
  "node-daemon": "cdi_hook enforced_means framework_env isolation_cards log_level mps_start poll_interval read_interval settle slots_per_card"
}`) . -}}
{{- end -}}
