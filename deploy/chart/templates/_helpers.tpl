{{- /* Names begin with this. 43 characters leave room for every suffix in 63. A release's name may have
       dots, a Service's may not. */ -}}
{{- define "gpu-fraction.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $given := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $given .Values.fullnameOverride | replace "." "-" | trunc 43 | trimSuffix "-" -}}
{{- end -}}

{{- /* Selectors cannot change, so no version is in them. Takes the root and the component. */ -}}
{{- define "gpu-fraction.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "gpu-fraction.labels" -}}
{{- $root := index . 0 -}}
{{ include "gpu-fraction.selector" . }}
app.kubernetes.io/part-of: gpu-fraction
app.kubernetes.io/version: {{ $root.Chart.AppVersion | replace "+" "_" | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- $own := dict -}}
{{- if gt (len .) 3 -}}{{- $own = ternary (index . 3) dict (kindIs "map" (index . 3)) -}}{{- end -}}
{{- with merge (dict) $own $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* Metadata of an object without a namespace. Takes the root, the component, the suffix of the name,
       and perhaps labels of its own. */ -}}
{{- define "gpu-fraction.cluster" -}}
{{- $root := index . 0 -}}
name: {{ printf "%s-%s" (include "gpu-fraction.fullname" $root) (index . 2) | trimSuffix "-" | quote }}
labels:
  {{- include "gpu-fraction.labels" . | nindent 2 }}
{{- end -}}

{{- define "gpu-fraction.namespaced" -}}
namespace: {{ (index . 0).Release.Namespace | quote }}
{{ include "gpu-fraction.cluster" . }}
{{- end -}}

{{- /* The binding of a role to an account of the same release. Takes the root, the component, which is
       the account's name, the suffix of the role's name and its kind. */ -}}
{{- define "gpu-fraction.binding" -}}
{{- $name := include "gpu-fraction.fullname" (index . 0) -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ index . 3 }}Binding
metadata:
  {{- include (ternary "gpu-fraction.cluster" "gpu-fraction.namespaced" (eq (index . 3) "ClusterRole")) . | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: {{ index . 3 }}, name: {{ $name }}-{{ index . 2 }}}
subjects:
  {{- include "gpu-fraction.subject" . | nindent 2 }}
{{- end -}}

{{- define "gpu-fraction.subject" -}}
{{- $root := index . 0 -}}
- {kind: ServiceAccount, name: {{ include "gpu-fraction.fullname" $root }}-{{ index . 1 }}, namespace: {{ $root.Release.Namespace | quote }}}
{{- end -}}

{{- /* The reference of an image. Takes the root, the image's values, its own registry and default tag. */ -}}
{{- define "gpu-fraction.reference" -}}
{{- $image := index . 1 -}}
{{- with default (index . 2) (index . 0).Values.imageRegistry -}}
{{ trimSuffix "/" . }}/
{{- end -}}
{{ $image.repository }}
{{- if $image.digest -}}
@{{ $image.digest }}
{{- else -}}
:{{ default (index . 3) $image.tag }}
{{- end -}}
{{- end -}}

{{- define "gpu-fraction.image" -}}
image: {{ include "gpu-fraction.reference" (list . .Values.image "" (.Chart.AppVersion | replace "+" "-")) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{- /* kube-scheduler of the server's version: v1.34.1+k3s1 and v1.34.1-eks-1 are v1.34.1. */ -}}
{{- define "gpu-fraction.schedulerImage" -}}
{{- $version := regexFind "^v?[0-9]+[.][0-9]+[.][0-9]+" .Capabilities.KubeVersion.Version | trimPrefix "v" -}}
image: {{ include "gpu-fraction.reference" (list . .Values.scheduler.image .Values.scheduler.image.registry (print "v" $version)) }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{- /* Whether a backend is used by the cluster or by some namespaces. Takes the root and the backend. */ -}}
{{- define "gpu-fraction.uses" -}}
{{- $root := index . 0 -}}
{{- $others := default list (get $root.Values.settings "namespace_backends") -}}
{{- if kindIs "string" $others -}}{{- $others = splitList "," (nospace $others) -}}{{- end -}}
{{- if has (index . 1) (prepend $others $root.Values.backend) -}}true{{- end -}}
{{- end -}}

{{- define "gpu-fraction.runsScheduler" -}}
{{- $given := toString .Values.scheduler.enabled -}}
{{- if or (eq $given "true") (and (eq $given "auto") (include "gpu-fraction.uses" (list . "native"))) -}}true{{- end -}}
{{- end -}}

{{- define "gpu-fraction.runsNodeDaemon" -}}
{{- $given := toString .Values.nodeDaemon.enabled -}}
{{- $wanted := or (include "gpu-fraction.uses" (list . "native")) .Values.dra.enabled -}}
{{- if or (eq $given "true") (and (eq $given "auto") $wanted) -}}true{{- end -}}
{{- end -}}

{{- define "gpu-fraction.chargesClaims" -}}
{{- if and .Values.dra.enabled (eq .Values.dra.handWrittenClaims "charge") -}}true{{- end -}}
{{- end -}}

{{- define "gpu-fraction.priorityClass" -}}
{{- $values := (index . 0).Values.priorityClass -}}
{{- if $values.create -}}
{{ include "gpu-fraction.fullname" (index . 0) }}-{{ ternary "node" "control-plane" (eq (index . 1) "nodeDaemon") }}
{{- else -}}
{{ get $values (index . 1) }}
{{- end -}}
{{- end -}}

{{- /* Labels and annotations of a part's pods. Takes the root, the component and the part's values. */ -}}
{{- define "gpu-fraction.podMetadata" -}}
{{- $values := index . 2 -}}
labels:
  {{- include "gpu-fraction.selector" . | nindent 2 }}
  {{- with merge (dict) $values.podLabels (index . 0).Values.commonLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* What the pods of webhook, controller and scheduler share. Takes the same three. */ -}}
{{- define "gpu-fraction.pod" -}}
{{- $root := index . 0 -}}
{{- $values := index . 2 -}}
serviceAccountName: {{ include "gpu-fraction.fullname" $root }}-{{ index . 1 }}
priorityClassName: {{ include "gpu-fraction.priorityClass" (list $root "controlPlane") | quote }}
{{- with $root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
affinity:
  {{- with $values.affinity }}
  {{- toYaml . | nindent 2 }}
  {{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
      - weight: 100
        podAffinityTerm:
          topologyKey: kubernetes.io/hostname
          labelSelector:
            matchLabels:
              {{- include "gpu-fraction.selector" . | nindent 14 }}
  {{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  - {{- toYaml . | nindent 4 }}
    {{- if not .labelSelector }}
    labelSelector:
      matchLabels:
        {{- include "gpu-fraction.selector" $ | nindent 8 }}
    {{- end }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- if not $root.Values.openshift }}
  runAsUser: 65532
  runAsGroup: 65532
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "gpu-fraction.locked" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- /* Variables of a program: what the chart decides, as a mapping, then the settings that the program
       knows, then extraEnv. Takes the root, the program, the mapping and the list. */ -}}
{{- define "gpu-fraction.env" -}}
{{- $env := index . 2 -}}
{{- $known := include "gpu-fraction.settings" (index . 1) | splitList " " -}}
{{- range $key, $value := (index . 0).Values.settings -}}
{{- if has $key $known -}}
{{- $text := $value -}}
{{- if kindIs "map" $value -}}
{{- $pairs := list -}}
{{- range $k, $v := $value -}}{{- $pairs = append $pairs (printf "%s=%s" $k (include "gpu-fraction.text" $v)) -}}{{- end -}}
{{- $text = join "," $pairs -}}
{{- else if kindIs "slice" $value -}}
{{- $words := list -}}
{{- range $value -}}{{- $words = append $words (include "gpu-fraction.text" .) -}}{{- end -}}
{{- $text = join "," $words -}}
{{- end -}}
{{- $_ := set $env $key $text -}}
{{- end -}}
{{- end -}}
{{- range $key, $value := $env }}
- {name: GPU_FRACTION_{{ upper $key }}, value: {{ include "gpu-fraction.text" $value | quote }}}
{{- end }}
{{- with index . 3 }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* A number without an exponent, which Helm would write from a million on. */ -}}
{{- define "gpu-fraction.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}

{{- /* Of a part with several replicas. Takes the root, the component and the part's values. */ -}}
{{- define "gpu-fraction.budget" -}}
{{- $root := index . 0 -}}
{{- if and $root.Values.podDisruptionBudget.enabled (gt (int (index . 2).replicas) 1) }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "gpu-fraction.namespaced" (list $root (index . 1) (index . 1)) | nindent 2 }}
spec:
  maxUnavailable: {{ $root.Values.podDisruptionBudget.maxUnavailable }}
  selector:
    matchLabels:
      {{- include "gpu-fraction.selector" . | nindent 6 }}
{{- end }}
{{- end -}}

{{- /* The names of this release, for the programs that look after the webhook's certificate, as JSON. */ -}}
{{- define "gpu-fraction.certificateNames" -}}
{{- $name := include "gpu-fraction.fullname" . -}}
{{- dict "cert_namespace" .Release.Namespace "cert_service" (print $name "-webhook") "cert_mutating" $name "cert_validating" $name | toJson -}}
{{- end -}}

{{- /* Parts of the webhook configurations, indented for their one place. */ -}}
{{- define "gpu-fraction.configurationAnnotations" -}}
{{- $annotations := .Values.webhook.annotations -}}
{{- if eq .Values.certificates.mode "cert-manager" -}}
{{- $certificate := printf "%s/%s-webhook" .Release.Namespace (include "gpu-fraction.fullname" .) -}}
{{- $annotations = merge (dict "cert-manager.io/inject-ca-from" $certificate) $annotations -}}
{{- end -}}
{{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "gpu-fraction.caBundle" -}}
{{- if eq .Values.certificates.mode "provided" }}
      caBundle: {{ .Values.certificates.provided.caBundle }}
{{- end }}
{{- end -}}

{{- define "gpu-fraction.namespaces" -}}
{{- with .Values.webhook.namespaceSelector }}
        {{- toYaml . | nindent 8 }}
{{- end }}
{{- end -}}
