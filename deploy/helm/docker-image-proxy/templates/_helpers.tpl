{{- define "mirror.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "mirror.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "mirror.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "mirror.selectorLabels" -}}
app.kubernetes.io/name: {{ include "mirror.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "mirror.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "mirror.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "mirror.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{- define "mirror.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "mirror.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "mirror.scheme" -}}
{{- if .Values.tlsSecret }}HTTPS{{ else }}HTTP{{ end -}}
{{- end -}}

{{/* Refuses values with which the service would not start, or would answer differently on each replica. */}}
{{- define "mirror.check" -}}
{{- $shared := .Values.shared -}}
{{- if and $shared.store (not $shared.index) -}}
{{- fail "shared.store is set and shared.index is not: the shared tier needs both" -}}
{{- end -}}
{{- if and $shared.index (not $shared.store) -}}
{{- fail "shared.index is set and shared.store is not: the shared tier needs both" -}}
{{- end -}}
{{- if and (eq .Values.page.mode "admin") (not .Values.page.operatorsSecret.name) -}}
{{- fail "page.operatorsSecret.name is not set: with page.mode=admin, only operators can open the page" -}}
{{- end -}}
{{- if and (or $shared.store (gt (int .Values.replicaCount) 1)) (not .Values.serverSecret.name) -}}
{{- fail "serverSecret.name is not set: without a common SERVER_SECRET, a replica refuses the tokens of the others" -}}
{{- end -}}
{{- end -}}
