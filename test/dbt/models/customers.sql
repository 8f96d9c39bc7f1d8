{{ config(materialized='table') }}
select id, email, plan, v from {{ source('app', 'customers') }}
